"""Restart, scale, suspend, resume, bake and repair of an app on the whole stack."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.client import Caller
from bench.stack import Stack
from tests.stack.conftest import NewRepository
from tests.stack.sites import end_of, visit

Json = dict[str, Any]
PATIENCE = 60.0
APP = """
import http.server, json, os, pathlib, time
SAYS = {"pid": os.getpid(), "x": os.environ.get("X"), "edition": "EDITION", "started": time.time_ns()}
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = json.dumps(SAYS).encode()
        status = 500 if "EDITION" == "broken" and time.time_ns() - SAYS["started"] > 1_500_000_000 else 200
        status = 500 if "EDITION" == "sour" and self.path != "/health" else status
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
SETTINGS = '[build]\ncommand = ""\n[run]\ncommand = "exec python3 app.py"\nhealth_check_interval = 0.2\n'


def edition(name: str) -> dict[str, str]:
    path = 'health_check_path = "/health"\n' if name == "sour" else ""
    return {"app.py": APP.replace("EDITION", name), "headway.toml": SETTINGS + path}


class Service:
    """One app on production."""

    def __init__(self, stack: Stack, caller: Caller, new_repository: NewRepository) -> None:
        self.stack, self.caller = stack, caller
        self.repository = new_repository(edition("one"))
        body = {"name": self.repository.path.name, "repository": self.repository.path.as_uri()}
        made = caller.finish(caller.post("/v1/sites", {**body, "runtime": "auto", "profile": "auto"}))
        self.site, self.env = made["resource"]["id"], made["resource"]["env_id"]
        self.path = f"/v1/sites/{self.site}/environments/{self.env}"
        self.hostname = caller.get(self.path)["hostnames"][0]
        self.folder = stack.data / "host" / "env" / self.env

    def push(self) -> Json:
        return self.caller.post(f"/v1/sites/{self.site}/deployments", {"ref": "main", "target": self.env})

    def act(self, action: str, body: Json | None = None) -> Json:
        return self.caller.finish(self.caller.post(f"{self.path}/{action}", body))

    def says(self) -> Json:
        page = visit(self.stack, self.hostname)
        assert page.status == 200, page
        return json.loads(page.body)

    def pids(self, looks: int = 40) -> set[int]:
        return {self.says()["started"] for _ in range(looks)}

    def state(self) -> Json:
        return self.caller.get(self.path)

    def drifts(self) -> list[Json]:
        return self.caller.get(f"{self.path}/drifts")

    def drift(self, kind: str) -> Json:
        """The newest of its kind."""
        return next((one for one in self.drifts() if one["kind"] == kind), {})

    def started(self) -> int | None:
        page = visit(self.stack, self.hostname)
        return json.loads(page.body)["started"] if page.status == 200 else None

    def pid(self) -> int:
        """The app's own, on this machine."""
        command = [sys.executable, "-m", "headway", "apps", "list"]
        environment = {**os.environ, "HEADWAY_DATA_DIR": str(self.stack.data)}
        said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        origin = json.loads((self.folder / "current" / "instances.json").read_bytes())["origin"]
        [found] = re.findall(rf"^{self.env} +{origin} +web\.0 +running +pid (\d+)", said, re.MULTILINE)
        return int(found)

    def live(self) -> int:
        return int(os.readlink(self.folder / "current").rpartition("/")[2])

    def instances(self) -> int:
        return len([one for one in (self.stack.data / "host" / "run" / "instances").glob("*") if self.env in one.name])


def until(read: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not good(value := read()):
        assert time.monotonic() < deadline, f"gave up waiting; last seen: {value!r}"
        time.sleep(0.1)
    return value


@pytest.fixture(scope="module")
def service(stack: Stack, caller: Caller, new_repository: NewRepository) -> Service:
    made = Service(stack, caller, new_repository)
    made.caller.finish(made.push())
    return made


class Visitor(threading.Thread):
    """Visits all the time, and counts what it got."""

    def __init__(self, service: Service) -> None:
        super().__init__(daemon=True)
        self.service, self.over, self.got = service, threading.Event(), Counter[int]()

    def run(self) -> None:
        while not self.over.wait(0.01):
            self.got[visit(self.service.stack, self.service.hostname).status] += 1

    def __enter__(self) -> Visitor:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()


def test_a_restart_takes_the_newest_configuration_and_loses_no_request(service: Service) -> None:
    before = service.says()
    assert before["x"] is None
    answer = service.caller.http.put(f"{service.path}/variables/X", json={"value": "new"})
    answer.raise_for_status()
    with Visitor(service) as visitor:
        job = service.act("restart")
    after = service.says()
    assert (after["x"], after["edition"]) == ("new", "one")
    assert after["started"] != before["started"]
    assert set(visitor.got) == {200}
    assert job["type"] == "environment.restart"
    assert service.state()["active_release_id"] == job["result"]["release_id"]


@pytest.mark.slow
def test_a_scaled_app_keeps_its_instances_and_its_number(service: Service) -> None:
    [first] = service.pids()
    with Visitor(service) as visitor:
        assert service.act("scale", {"instances": 3})["result"]["instances"] == 3
        three = until(service.pids, lambda found: len(found) == 3)
        assert first in three
        service.act("restart")
        fresh = until(service.pids, lambda found: len(found) == 3 and not found & three)
        service.act("scale", {"instances": 1})
        until(service.pids, lambda found: len(found) == 1 and found < fresh)
    assert set(visitor.got) == {200}
    assert service.state()["instances"] == 1


def test_a_suspended_environment_says_so_and_comes_back_as_it_was(service: Service) -> None:
    live, says = service.state()["active_release_id"], service.says()
    job = service.act("suspend")
    page = visit(service.stack, service.hostname)
    assert (page.status, page.text) == (503, "This site is suspended.\n")
    state = service.state()
    assert (state["status"], state["active_release_id"]) == ("suspended", live)
    refused = service.caller.http.post(f"/v1/sites/{service.site}/deployments", json={"ref": "main"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "environment.suspended")
    until(service.instances, lambda number: number == 0)
    again = service.act("resume")
    assert again["result"]["env_id"] == job["result"]["env_id"] == service.env
    assert service.state()["status"] == "active"
    after = service.says()
    assert (after["edition"], after["x"]) == (says["edition"], says["x"])
    assert after["started"] > says["started"]


def test_a_release_that_turns_bad_in_its_bake_goes_back(service: Service) -> None:
    answer = service.caller.http.patch(service.path, json={"bake_seconds": 30})
    assert answer.json()["data"]["bake_seconds"] == 30
    good, live = service.says(), service.state()["active_release_id"]
    service.repository.commit(edition("broken"))
    job = end_of(service.caller, service.push())
    error = job["error"]
    assert (job["status"], error["code"], error["stage"]) == ("failed", "roll.bake_failed", "bake")
    [measured] = job["result"]["bake"]["hosts"]
    assert measured["looks"] > measured["bad"] >= 3
    assert measured["seconds"] < 30
    # The instance that served before: nothing was started for it.
    assert service.says() == good
    assert service.state()["active_release_id"] == live
    service.caller.http.patch(service.path, json={"bake_seconds": 0}).raise_for_status()


@pytest.mark.slow
def test_a_release_that_only_its_visitors_find_bad_goes_back(service: Service) -> None:
    """Its health path is fine all the time: the web server's log tells."""
    service.caller.http.patch(service.path, json={"bake_seconds": 60}).raise_for_status()
    good = service.says()
    service.repository.commit(edition("sour"))
    job = service.push()
    until(lambda: service.caller.get(f"/v1/jobs/{job['id']}")["stage"], lambda stage: stage == "bake")
    with Visitor(service) as visitor:
        job = end_of(service.caller, job)
    [measured] = job["result"]["bake"]["hosts"]
    assert (job["error"]["code"], measured["bad"]) == ("roll.bake_failed", 0)
    assert "visitors got a server error" in measured["why"]
    assert 20 <= measured["requests"] <= sum(visitor.got.values())
    assert measured["errors"] > 0
    assert service.says() == good
    service.caller.http.patch(service.path, json={"bake_seconds": 0}).raise_for_status()


@pytest.mark.slow
def test_a_host_puts_right_what_drifts_and_says_so(service: Service) -> None:
    def mended(kind: str) -> Json | None:
        rows = [one for one in service.drifts() if one["kind"] == kind and one["release_seq"] == live]
        return next((one for one in rows if one["mended_at"]), None)

    live, before = service.live(), service.says()
    (service.folder / "current").unlink()
    until(lambda: visit(service.stack, service.hostname).status, lambda status: status == 200)
    assert service.live() == live
    assert "was gone" in until(lambda: mended("current"), bool)["what"]
    assert service.says() == before

    os.kill(service.pid(), signal.SIGKILL)
    until(service.started, lambda now: now not in (None, before["started"]))
    assert "web.0" in until(lambda: mended("instance"), bool)["what"]

    tree = Path(os.path.realpath(service.folder / "current" / "root"))
    (tree / "app.py").unlink()
    (tree / "app.py").write_text("edited")
    (tree / "added.py").write_text("added")
    assert "added.py, app.py" in until(lambda: mended("tree"), bool)["what"]
    assert (tree / "app.py").read_text() == edition("one")["app.py"]
    assert not (tree / "added.py").exists()


@pytest.mark.slow
def test_what_a_host_has_lost_is_fetched_again_through_the_queue(service: Service) -> None:
    live, says = service.live(), service.says()
    tree = Path(os.path.realpath(service.folder / "current" / "root"))
    os.chmod(tree / "app.py", 0o644)
    (tree / "app.py").write_text("edited in place: the store has it, too")
    row = until(lambda: service.drift("contents"), lambda one: one.get("mended_at"))
    assert "app.py" in row["what"]
    job = end_of(service.caller, service.caller.get(f"/v1/jobs/{row['job_id']}"))
    assert (job["type"], job["status"], job["actor"]["type"]) == ("environment.repair", "succeeded", "system")
    assert (tree / "app.py").read_text() == edition("one")["app.py"]
    assert service.live() > live
    assert service.says() == says
