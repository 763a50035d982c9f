"""Restart, scale, suspend, resume, bake and repair of an app on the whole stack."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from bench.client import Caller
from bench.stack import Stack
from tests.stack.conftest import NewRepository
from tests.stack.sites import visit

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
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
SETTINGS = '[build]\ncommand = ""\n[run]\ncommand = "exec python3 app.py"\nhealth_check_interval = 0.2\n'


def edition(name: str) -> dict[str, str]:
    return {"app.py": APP.replace("EDITION", name), "headway.toml": SETTINGS}


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
