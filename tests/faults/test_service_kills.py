"""kill -9 in each stage of a service's roll: the job ends right, once, and visitors get one edition or the other."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable

import pytest

from adapters.runtime.driver import Status
from adapters.runtime.process.driver import ProcessDriver, Setup
from bench.client import Caller
from bench.stack import Stack
from tests.faults.conftest import Visitor
from tests.faults.parts import kill, patiently, releases
from tests.faults.repository import Repository
from tests.faults.test_cancel import processes_with
from tests.faults.test_kill import COMPONENTS
from tests.stack.sites import Place, visit
from tests.stack.test_services import keeper_of

pytestmark = pytest.mark.slow
Until = Callable[[Callable[[], bool], str], None]
CHANCE = random.Random(int(os.environ.get("HEADWAY_TEST_SEED", "20240917")))
STAGES = ("start", "health", "switch", "bake", "drain", "stop")
VICTIMS = ("keeper", "old keeper", "host", "caddy", CHANCE.choice(COMPONENTS))
ALL = [(stage, victim) for stage in STAGES for victim in VICTIMS]
CASES = CHANCE.sample(ALL, 2) if os.environ.get("HEADWAY_FAULTS") == "sample" else ALL
APP = """
import http.server, os, signal, sys, threading, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        slow = self.path == "/slow"
        body = b"s" * 60 if slow else b"EDITION"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for letter in body if slow else ():
            self.wfile.write(bytes([letter]))
            self.wfile.flush()
            time.sleep(0.1)
        if not slow:
            self.wfile.write(body)

    def log_message(self, *words):
        pass

signal.signal(signal.SIGTERM, lambda *_: (time.sleep(3), os._exit(0)))
time.sleep(1.5)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
TOML = """
[build]
command = ""
[run]
command = "exec python3 app.py"
health_check_timeout = 15
health_check_interval = 0.2
"""
# What a killed keeper may turn a roll into: its instance was not healthy, or was so no longer.
REFUSED = {"roll.health_failed", "roll.start_failed", "roll.bake_failed"}


def commit(repository: Repository, edition: str) -> None:
    (repository.folder / "app.py").write_text(APP.replace("EDITION", edition))
    (repository.folder / "headway.toml").write_text(TOML)
    repository.git("add", ".")
    repository.git("commit", "-q", "-m", edition)


@pytest.fixture
def place(stack: Stack, caller: Caller, repository: Repository) -> Place:
    commit(repository, "first")
    site = caller.new_site(repository.folder.name, repository.folder.as_uri(), runtime="auto")
    made = Place(stack, caller, site, repository)
    made.push()
    return made


def instances(place: Place) -> list[Status]:
    return ProcessDriver(Setup(state=place.stack.data / "host" / "run")).list(place.site.production)


def page(place: Place) -> str:
    try:
        return visit(place.stack, place.site.production_host).body.decode()
    except OSError:
        return ""


def reached(place: Place, job: str, stage: str, old: int) -> bool:
    if stage == "stop":
        return any(one.ref.seq == old and one.state == "stopping" for one in instances(place))
    found = place.caller.get(f"/v1/jobs/{job}")
    if stage == "drain":
        return bool(found["status"] == "succeeded")
    # `start` and `switch` may be over by the time they are seen: whatever comes next is hit then.
    order = ("start", "health", "switch", "bake", "record")
    return found["stage"] in order[order.index(stage) :] or found["finished_at"] is not None


def hit(place: Place, victim: str, old: int) -> bool:
    """Whether there was anybody to be hit."""
    if "keeper" not in victim:
        kill(place.stack, victim)
        return True
    for one in instances(place):
        if one.pid is not None and (one.ref.seq == old) is (victim == "old keeper"):
            os.kill(keeper_of(one), signal.SIGKILL)
            return True
    return False


@pytest.mark.parametrize(("stage", "victim"), CASES)
def test_a_service_is_rolled_whoever_dies(
    stack: Stack, caller: Caller, place: Place, repository: Repository, until: Until, stage: str, victim: str
) -> None:
    # A bake keeps what it may go back to: what is replaced without one leaves soon.
    bakes = stage not in ("drain", "stop")
    caller.http.patch(place.path(place.site.production), json={"bake_seconds": 4 * bakes}).raise_for_status()
    [old] = {one.ref.seq for one in instances(place)}
    commit(repository, "second")
    artifact = place.build(env=place.site.production)["artifact_id"]
    visitor = Visitor(stack, place.site.production_host)
    visitor.start()
    download = threading.Thread(target=lambda: visit(stack, place.site.production_host, "/slow"), daemon=True)
    if stage == "drain" and victim == "host":
        download.start()
    job = place.start_roll(artifact, place.site.production)
    until(lambda: reached(place, job["id"], stage, old), f"the roll is in {stage}")
    deadline = time.monotonic() + 10
    while not hit(place, victim, old) and time.monotonic() < deadline:
        time.sleep(0.02)
    ended = patiently(caller, job)
    live = "second" if ended["status"] == "succeeded" else "first"
    if live == "first":
        assert "keeper" in victim, ended["error"]
        assert ended["error"]["code"] in REFUSED
    rows = releases(caller, place.site)
    assert [row["current"] for row in rows] == [True, False] if live == "second" else [True]
    until(lambda: page(place) == live, f"{live} is served")
    visitor.stop()
    assert set(visitor.seen) <= {"first", "second"}
    if victim not in ("caddy", "keeper", "old keeper"):
        assert visitor.failures == []

    def alone() -> bool:
        found = [one for one in instances(place) if one.state == "running" and not (bakes and one.ref.seq == old)]
        return len(found) == (live == "second" or not bakes) and page(place) == live

    until(alone, "one instance is left, and it serves")


def test_a_command_that_is_canceled_while_its_host_is_away_is_ended(
    stack: Stack, caller: Caller, place: Place, until: Until
) -> None:
    """Temporal makes no other try of what was canceled: the worker that comes back looks after it by itself."""
    seconds = str(time.time_ns())[-9:]
    job = caller.post(place.path(place.site.production, "run"), {"command": f"sleep {seconds}"})
    until(lambda: processes_with(seconds) != [], "the command runs")
    kill(stack, "host")
    assert caller.http.post(f"/v1/jobs/{job['id']}/cancel").status_code == 202
    ended = patiently(caller, job)
    assert (ended["status"], ended["error"]["code"]) == ("canceled", "job.canceled")
    until(lambda: processes_with(seconds) == [], "it is gone")
