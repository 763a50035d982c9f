"""The embedded driver's own promises: what dies, what survives, and that there is never a second copy."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from adapters.runtime.driver import InstanceRef
from adapters.runtime.process import control
from adapters.runtime.process.driver import ProcessDriver, Setup
from adapters.runtime.process.recipe import Pace
from headway.errors import HeadwayError
from tests.runtime.conftest import QUICK
from tests.runtime.stage import Stage, until

STARTER = """
import sys, time
from pathlib import Path
from adapters.runtime.driver import InstanceRef, InstanceSpec
from adapters.runtime.process import control
from adapters.runtime.process.driver import ProcessDriver, Setup
state, tree = map(Path, sys.argv[1:3])
ProcessDriver(Setup(state)).ensure(InstanceSpec(InstanceRef("env_1", 1), tree, "exec python3 app.py"))
print("started", flush=True)
time.sleep(600)
"""
OWN_MOST = 11 << 10  # KiB of its own; code is shared with every other Python process


def record(stage: Stage, ref: InstanceRef) -> dict[str, object]:
    folder = stage.driver._places.folder(ref)  # type: ignore[attr-defined]
    found: dict[str, object] = json.loads((folder / "state.json").read_text())
    return found


def keeper_of(stage: Stage, ref: InstanceRef) -> int:
    return int(str(record(stage, ref)["keeper"]))


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_an_instance_outlives_whoever_started_it_and_is_adopted(box: Stage, place: Path) -> None:
    spec = box.spec()
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(place / "state"), str(box.tree)],
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"started\n"
        before = box.driver.status(spec.ref)
        os.killpg(starter.pid, signal.SIGKILL)
    until(lambda: box.answers(spec.ref), "it died with its starter")
    after = box.driver.ensure(spec)
    assert after.state in ("starting", "running")
    assert after.restarts == 0
    assert before.pid in (None, box.driver.status(spec.ref).pid)
    assert box.lines(spec.ref).count("serving") == 1


def test_what_a_killed_keeper_ran_dies_with_it_and_ensure_starts_one(box: Stage) -> None:
    ref = box.serve()
    keeper, app = keeper_of(box, ref), box.driver.status(ref).pid
    assert app is not None
    os.kill(keeper, signal.SIGKILL)
    until(lambda: gone(app), "the app outlived its keeper")
    status = box.driver.status(ref)
    assert (status.state, status.reason) == ("stopped", "its keeper is gone")
    assert box.driver.connections(ref) == 0
    box.driver.ensure(box.spec())
    until(lambda: box.answers(ref), "not started again")
    assert keeper_of(box, ref) != keeper


def test_a_keeper_killed_while_it_starts_leaves_no_second_copy(box: Stage) -> None:
    spec = box.spec()
    for _ in range(5):
        box.driver.ensure(spec)
        os.kill(keeper_of(box, spec.ref), signal.SIGKILL)
    box.driver.ensure(spec)
    until(lambda: box.answers(spec.ref), "never answered")
    mark = f"HEADWAY_INSTANCE={box.driver._places.mark(spec.ref)}".encode()  # type: ignore[attr-defined]
    outer = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and mark in _environ(pid)]
    keeper = keeper_of(box, spec.ref)
    assert len(outer) == 2, "bubblewrap and the first process of its namespace"
    assert {_parent(pid) for pid in outer} <= {keeper, *outer}, "something is left of an earlier keeper"


def test_a_stopped_keeper_that_hangs_is_killed(box: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "SECONDS", 0.5)
    ref = box.serve()
    keeper, app = keeper_of(box, ref), box.driver.status(ref).pid
    os.kill(keeper, signal.SIGSTOP)
    assert box.driver.status(ref).state == "running", "a keeper that is busy is not one that is gone"
    box.driver._over = lambda ref, seconds, over=box.driver._over: over(ref, min(seconds, 1.0))  # type: ignore[attr-defined]
    assert box.driver.stop(ref, 0.0).state == "stopped"
    assert gone(keeper)
    assert app is not None
    until(lambda: gone(app), "the app outlived a killed keeper")


@pytest.mark.parametrize("which", ["socket", "control"])
def test_a_socket_whose_name_was_removed_gets_it_back(box: Stage, which: str) -> None:
    ref = box.serve()
    pid, places = box.driver.status(ref).pid, box.driver._places  # type: ignore[attr-defined]
    name = places.socket(ref) if which == "socket" else places.control(ref)
    name.unlink()
    until(name.exists, "nobody dials it any more")
    until(lambda: box.answers(ref), "nobody answers there")
    status = box.driver.ensure(box.spec())
    assert (status.state, status.restarts, status.pid) == ("running", 0, pid)
    box.driver.stop(ref, 1.0)
    assert not name.exists()


def test_a_crash_loop_is_reported_with_its_reason_and_tried_on(box: Stage) -> None:
    ref = box.start(command="echo no database; exit 9")
    status = box.until_state(ref, "crash_loop")
    assert status.exit_code == 9
    assert status.reason == "exit code 9"
    assert status.restarts >= QUICK.deaths
    until(lambda: box.driver.status(ref).restarts > status.restarts, "it is not tried any more")
    assert box.driver.stop(ref, 5.0).state == "stopped"


def test_pauses_grow_and_are_bounded() -> None:
    pace = Pace()
    assert [pace.pause(deaths) for deaths in range(1, 8)] == [0.5, 1, 2, 4, 30, 30, 30]
    assert Pace(deaths=99).pause(50) == 30


def test_a_command_that_does_not_exist(box: Stage) -> None:
    ref = box.start(command="exec /no/such/program")
    assert box.until_state(ref, "crash_loop").exit_code == 127
    assert any("/no/such/program" in line for line in box.lines(ref, "stderr"))


def test_a_slow_download_goes_on_through_stop_within_its_grace(box: Stage) -> None:
    ref = box.serve()
    with box.dial(ref) as one:
        one.sendall(b"GET /stream?mib=8&pause=0.005 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        heard = one.recv(1 << 16)
        stopper = threading.Thread(target=box.driver.stop, args=(ref, 60.0))
        stopper.start()
        box.until_state(ref, "stopping")
        with pytest.raises((OSError, AssertionError)):
            box.dial(ref)
        while data := one.recv(1 << 16):
            heard += data
        stopper.join()
    assert len(heard.partition(b"\r\n\r\n")[2]) == 8 << 20
    assert box.driver.status(ref).exit_code == 0


def test_bytes_that_an_app_left_behind_still_reach_a_slow_reader(box: Stage) -> None:
    program = "import os, socket; s = socket.create_server(('', 8080)); print('up', flush=True)\n"
    program += "c, _ = s.accept(); c.sendall(b'z' * 2_000_000); print('sent', flush=True); os._exit(0)"
    (box.tree / "burst.py").write_text(program)
    ref = box.start(command="exec python3 burst.py", stop_grace=30.0)
    box.until_line(ref, "up")
    with box.dial(ref) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        box.until_line(ref, "sent")
        stopper = threading.Thread(target=box.driver.stop, args=(ref, 30.0))
        stopper.start()
        heard = 0
        while data := one.recv(1 << 14):
            heard += len(data)
        stopper.join()
    assert heard == 2_000_000


def test_backpressure_reaches_the_app(box: Stage) -> None:
    ref = box.serve()
    keeper = keeper_of(box, ref)
    with box.dial(ref) as one:
        one.sendall(b"GET /stream?mib=400 HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: one.recv(1 << 20), "nothing came")
        until(lambda: box.answers(ref), "others wait for the slow one")
        assert _own_memory(keeper) < OWN_MOST + (4 << 10), "what is not read piles up in the keeper"


def test_many_connections_at_once(box: Stage) -> None:
    ref = box.serve(limits={"pids": 256})
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(box.dial(ref)) for _ in range(100)]
        for one in opened:
            one.sendall(b"GET / HTTP/1.0\r\n\r\n")
        for one in opened:
            assert one.recv(4096).startswith(b"HTTP/1.1 200")
    until(lambda: box.driver.connections(ref) == 0, "connections are left over")


def test_a_keeper_is_small(box: Stage) -> None:
    ref = box.serve()
    assert _own_memory(keeper_of(box, ref)) < OWN_MOST


@pytest.mark.parametrize("text", ["x" * 80 + "\\n", "x"], ids=["lines", "single bytes"])
def test_an_app_that_prints_without_end_takes_a_part_of_a_processor_beside_its_own(box: Stage, text: str) -> None:
    threads = f"import os, threading; threading.Thread(target=lambda: [os.write(1, b'{text}') for _ in iter(int, 1)])"
    command = f'exec python3 -c "{threads}.start(); import app; app.main()"'
    ref = box.serve(command=command)
    keeper = keeper_of(box, ref)
    until(lambda: processor_time(keeper) > 1.5, "it prints nothing")
    before, began = processor_time(keeper), time.monotonic()
    time.sleep(2.0)
    assert processor_time(keeper) - before < 0.5 * (time.monotonic() - began)
    assert box.answers(ref)
    assert box.driver.stop(ref, 0.0).state == "stopped"


def processor_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(shutil.which("npm", path="/usr/local/bin:/usr/bin") is None, reason="no npm here")
def test_a_script_of_npm_passes_the_signal_on(box: Stage) -> None:
    (box.tree / "package.json").write_text(json.dumps({"scripts": {"start": "python3 app.py", "web": "npm start"}}))
    for seq, command in enumerate(("npm start", "npm run web; echo after"), 1):
        ref = box.serve(seq=seq, command=command)
        assert box.driver.stop(ref, 10.0).exit_code == 0
        assert "finished" in box.lines(ref)


def test_nothing_is_left_of_a_removed_instance(box: Stage, place: Path) -> None:
    before = {path.relative_to(place) for path in place.rglob("*")}
    ref = box.serve(egress=("example.com",))
    keeper, app = keeper_of(box, ref), box.driver.status(ref).pid
    assert app is not None
    groups = Path("/proc", str(app), "cgroup").read_text()
    box.driver.remove(ref)
    assert gone(keeper)
    assert gone(app)
    after = {path.relative_to(place) for path in place.rglob("*")}
    assert {path for path in after - before if path.name not in ("uids.json", "uids.lock")} == set()
    mark = box.driver._places.mark(ref)  # type: ignore[attr-defined]
    if mark in groups:
        assert not list(Path("/sys/fs/cgroup").glob(f"**/app-{mark}"))


def test_a_state_folder_too_deep_for_sockets_is_named(place: Path) -> None:
    with pytest.raises(HeadwayError) as caught:
        ProcessDriver(Setup(place / ("d" * 100)))
    assert caught.value.code == "runtime.path_too_long"


@pytest.mark.parametrize(
    ("ref", "changes"),
    [
        (InstanceRef("../env", 1), {}),
        (InstanceRef("env_1", 1, "a/b"), {}),
        (InstanceRef("env_1", 1), {"cwd": "../.."}),
        (InstanceRef("env_1", 1), {"egress": ("https://example.com/",)}),
        (InstanceRef("env_1", 1), {"env": {"A=B": "c"}}),
    ],
)
def test_what_cannot_be_an_instance_is_refused_before_anything_starts(
    box: Stage, ref: InstanceRef, changes: dict[str, object]
) -> None:
    spec = box.spec(ref=ref, **changes)
    box.started.clear()
    with pytest.raises(HeadwayError) as caught:
        box.driver.ensure(spec)
    assert caught.value.code == "runtime.spec_invalid"
    assert box.driver.list() == []
    assert not list((box.tree.parent / "state" / "instances").iterdir())


def test_a_release_command_survives_its_caller_and_runs_once(box: Stage, place: Path) -> None:
    spec = box.spec(command="echo begun; sleep 1; echo done", ref=InstanceRef("env_1", 1, "release"))
    caller = subprocess.Popen(
        [
            sys.executable,
            "-c",
            STARTER.replace(
                '.ensure(InstanceSpec(InstanceRef("env_1", 1), tree, "exec python3 app.py"))',
                f'.run_once(InstanceSpec(InstanceRef("env_1", 1, "release"), tree, {spec.command!r}), 60)',
            ),
            str(place / "state"),
            str(box.tree),
        ],
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with caller:
        box.until_line(spec.ref, "begun")
        os.killpg(caller.pid, signal.SIGKILL)
    code, lines = box.driver.run_once(spec, 60.0)
    assert code == 0
    assert [one.line for one in lines if one.stream == "stdout"] == ["begun", "done"]


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _environ(pid: str) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _own_memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1])
    raise AssertionError(f"{pid} has no memory")
