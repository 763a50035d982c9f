"""What stands between an app and somebody else's log: here with this machine's Python, without walls."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.runtime import teller
from tests.runtime.stage import until

TOP = Path(__file__).resolve().parents[2]
SECRET = "s3cret/of+the=teller"
BOOT = f"import sys; sys.path[:0] = [{str(TOP)!r}]; from adapters.runtime.teller import main; main()"


def start(code: str, how: str = "pass") -> subprocess.Popen[bytes]:
    words = [sys.executable, "-I", "-S", "-B", "-c", BOOT, how, "TOKEN,ABSENT", sys.executable, "-u", "-c", code]
    env = {"PATH": os.environ["PATH"], "TOKEN": SECRET, "COLOUR": "seagreen"}
    return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_values_are_taken_out_of_both_streams_also_across_two_writes() -> None:
    code = """if 1:
        import base64, os, sys, time
        token, colour = os.environ["TOKEN"], os.environ["COLOUR"]
        print("plain", token, colour)
        print("base64", base64.b64encode(b"ab" + token.encode()).decode())
        sys.stdout.write("two " + token[:7]); sys.stdout.flush(); time.sleep(0.2); print(token[7:])
        print("fault", token, file=sys.stderr)
        sys.stdout.write("last " + token[:-1])
        sys.exit(5)
    """
    process = start(code)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 5
    assert out.splitlines()[0] == b"plain [TOKEN redacted] seagreen"
    assert out.splitlines()[2] == b"two [TOKEN redacted]"
    assert err == b"fault [TOKEN redacted]\n"
    assert out.endswith(b"last " + SECRET[:-1].encode()), "what never became the value is told at the end"
    assert SECRET.encode() not in out + err
    assert base64.b64encode(SECRET.encode())[:20] not in out


def test_a_line_that_may_go_on_as_a_value_is_told_when_nothing_follows() -> None:
    process = start(f"import time; print({SECRET[:6]!r}); time.sleep(120)")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == SECRET[:6].encode() + b"\n"
    finally:
        process.kill()
        process.communicate(timeout=60)


@pytest.mark.parametrize(("how", "said"), [("pass", b"asked to end"), ("keep", b"")])
def test_signals_reach_the_app_where_nobody_else_sends_them(tmp_path: Path, how: str, said: bytes) -> None:
    ready = tmp_path / "ready"
    code = f"""if 1:
        import pathlib, signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (print("asked to end"), sys.exit(3)))
        pathlib.Path({str(ready)!r}).touch()
        for _ in range(600): time.sleep(0.1) if not pathlib.Path({str(ready)!r} + "2").exists() else sys.exit(4)
    """
    process = start(code, how)
    until(ready.exists, "the app runs")
    process.send_signal(signal.SIGTERM)
    if how == "keep":
        ready.with_name("ready2").touch()
    out, _ = process.communicate(timeout=60)
    assert (out.strip(), process.returncode) == (said, 3 if how == "pass" else 4)


def test_it_ends_by_the_signal_that_ended_the_app() -> None:
    process = start("import os, signal; print('going', flush=True); os.kill(os.getpid(), signal.SIGKILL)")
    out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == (b"going\n", -signal.SIGKILL)


def test_the_loader_of_this_python_is_found() -> None:
    loader = teller.interpreter(Path(os.path.realpath(sys.executable)))
    assert loader is not None
    assert loader.exists()
    words = teller.command(["A", "B"], ["app"], passes=True, foreign=True)
    targets = [Path(target) for _, target in teller.shown(foreign=True)]
    assert all(any(Path(one).is_relative_to(target) for target in targets) for one in (words[0], words[3]))
    assert words[-3:] == ["pass", "A,B", "app"]
