"""`headway demo`: the whole way of a real published site; nothing is left of it, also when it is interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "headway", "demo"]
LAST = 13


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Short: unix sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="hd-", dir="/tmp") as folder:
        yield Path(folder)


def environment(scratch: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(scratch), "HEADWAY_API_URL": "http://127.0.0.1:1", "HEADWAY_TOKEN": "other"}


def left_running(scratch: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(scratch / "headway-demo-") in command:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.mark.slow
def test_it_goes_all_the_way_and_leaves_nothing(scratch: Path) -> None:
    done = subprocess.run(COMMAND, env=environment(scratch), capture_output=True, text=True, timeout=170, check=False)
    if "No site could be fetched" in done.stderr:
        pytest.skip(f"no package index can be reached: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    steps = [int(one) for one in re.findall(r"^ ?(\d+)  \S", done.stdout, re.MULTILINE)]
    assert steps == list(range(1, LAST + 1))
    titles = re.findall(r"  200  “(.*)”", done.stdout)
    assert titles == [titles[0], titles[0], f"{titles[0]}, second edition", titles[0]]
    assert done.stdout.count("as signed") == 4
    assert list(scratch.glob("headway-demo-*")) == []
    assert left_running(scratch) == []


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_interrupted_it_stops_what_it_started(scratch: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        COMMAND, env=environment(scratch), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said = ""
    with process.stdout as lines:
        for line in lines:
            said += line
            if "temporal " in line:
                process.send_signal(number)
    code = process.wait(60)
    if "No site could be fetched" in said:
        pytest.skip(f"no package index can be reached: {said.strip()}")
    assert code == 130, said
    assert "everything was stopped" in said
    assert list(scratch.glob("headway-demo-*")) == []
    assert left_running(scratch) == []
