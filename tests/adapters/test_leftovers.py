"""A builder that is killed at any moment leaves nothing that runs, and nothing at all once the next one is there."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.sandbox import Command, Limits, Sandbox, capabilities, leftovers

pytestmark = pytest.mark.skipif(not capabilities().ok, reason="no sandbox here")

# Forks a builder again and again and kills it a little later each time: while bubblewrap sets up, and after that.
PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from adapters.sandbox import Command, Limits, Sandbox
state, mark = Path(sys.argv[1]), sys.argv[2]
limits = Limits(wall=60, memory=1 << 29, pids=100, disk=1 << 29, log=1 << 20)
known = Sandbox(state=state, slots=1)
known._require()
for moment in range(40):
    builder = os.fork()
    if builder == 0:
        box = Sandbox(state=state, slots=1)
        box._mode = known._mode
        with box.workspace() as work:
            command = Command(["bash", "-c", f"exec -a {mark} sleep 300"], work, limits)
            box.run(command, lambda *_: None, lambda: False)
        os._exit(0)
    time.sleep(0.004 + moment * 0.001)
    os.kill(builder, signal.SIGKILL)
    os.waitpid(builder, 0)
"""


def test_a_builder_killed_at_any_moment_leaves_nothing(tmp_path: Path) -> None:
    state, mark = tmp_path / "state", "survivor-" + secrets.token_hex(4)
    top = str(Path(__file__).resolve().parents[2])
    env = {**os.environ, "PYTHONPATH": top}
    subprocess.run([sys.executable, "-c", PROGRAM, str(state), mark], env=env, check=True, timeout=120)
    wait_for(lambda: not [line for line in command_lines(mark) if line.startswith(mark)])
    sandbox = Sandbox(state=state, slots=1)
    assert command_lines(mark) == []
    assert leftovers.marked(sandbox._slots.mark(0), sandbox._slots.uid(0)) == []
    assert [entry.name for entry in (state / "slots" / "0").iterdir()] == ["lock"]


def test_a_run_that_is_canceled_before_it_has_begun_leaves_nothing(tmp_path: Path) -> None:
    mark = "early-" + secrets.token_hex(4)
    sandbox = Sandbox(state=tmp_path / "state", slots=1)
    limits = Limits(wall=60, memory=1 << 29, pids=100, disk=1 << 29, log=1 << 20)
    with sandbox.workspace() as workspace:
        for moment in range(12):
            # The clock of a limit, so that it is over while bubblewrap sets up, a little later each time.
            command = Command(
                ["bash", "-c", f"exec -a {mark} sleep 300"], workspace, replace(limits, wall=moment / 500)
            )
            assert sandbox.run(command, lambda *_: None, lambda: False).limit == "timeout"
            assert command_lines(mark) == []


def test_what_waits_for_a_builder_that_died_is_ended_and_others_are_left_alone() -> None:
    words = [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(300)"]
    marks = ("headway-test-one", "headway-test-two")
    mine, other = (
        subprocess.Popen(words, env={leftovers.VARIABLE: mark}, stdout=subprocess.PIPE, text=True) for mark in marks
    )
    try:
        for process in (mine, other):
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
        reaped: list[int] = []
        thread = threading.Thread(target=lambda: reaped.append(mine.wait()))
        thread.start()
        assert leftovers.end(marks[0], None)
        thread.join()
        assert reaped == [-9]
        assert other.poll() is None
    finally:
        for process in (mine, other):
            process.kill()
            process.communicate()


def command_lines(mark: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if mark in line:
                found.append(line)
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)
