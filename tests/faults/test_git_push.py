"""kill -9 in the middle of a push: its job ends by itself, its branch follows, and the next push is accepted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.client import Caller
from bench.stack import Stack
from tests.faults.parts import kill, patiently
from tests.stack.pusher import Pusher, ended

pytestmark = pytest.mark.slow
Until = Callable[[Callable[[], bool], str], None]
SLOW = '[build]\ncommand = "sleep 3"\noutput = "."\n'


@pytest.mark.parametrize("names", [("api",), ("control",), ("builder",), ("api", "control", "builder", "host")])
def test_in_the_middle_of_a_push(
    stack: Stack, caller: Caller, tmp_path: Path, until: Until, names: tuple[str, ...]
) -> None:
    pusher = Pusher(caller, stack, tmp_path, "Killed " + " ".join(names))
    commit = pusher.work.commit({"index.html": "<h1>one</h1>", "headway.toml": SLOW})
    pushing = pusher.start("main")
    said = ""
    for line in pushing.stdout or ():
        said += line
        if "queued" in line:
            break
    job_id = said.partition("/ ")[2].split()[0]
    until(lambda: caller.get(f"/v1/jobs/{job_id}")["status"] == "running", "it builds")
    for name in names:
        kill(stack, name)
    pushed = ended(pushing)
    assert (pushed.code == 0) == ("api" not in names), said + pushed.text
    job = patiently(caller, {"id": job_id, "status": "running"})
    assert job["status"] == "succeeded", job["error"]

    def followed() -> bool:
        return pusher.branches() == {"main": commit}

    until(followed, "the branch has followed")
    assert "one" in pusher.page()
    pusher.work.commit({"index.html": "<h1>two</h1>", "headway.toml": ""})
    pushed = pusher.push("main")
    assert pushed.code == 0, pushed.text
    assert "two" in pusher.page()
