"""kill -9 of the host worker and of the API while an app prints: no line is lost, none comes twice, followers go on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import httpx
import pytest

from bench.client import Caller
from bench.stack import Stack
from tests.faults.parts import kill
from tests.faults.repository import Repository
from tests.stack.test_app_logs import MANIFEST, Cli, Follower

pytestmark = pytest.mark.slow
Until = Callable[[Callable[[], bool], str], None]
APP = """
import http.server, os, threading, time

def tick():
    for number in range(1, 100_000):
        print("tick", number, flush=True)
        time.sleep(0.05)

threading.Thread(target=tick, daemon=True).start()
address = ("127.0.0.1", int(os.environ["PORT"]))
http.server.ThreadingHTTPServer(address, http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def ticks(lines: list[str]) -> list[int]:
    return [int(line.rpartition("tick ")[2]) for line in lines if "tick " in line]


def test_lines_through_kills(stack: Stack, caller: Caller, repository: Repository, until: Until) -> None:
    (repository.folder / "app.py").write_text(APP)
    (repository.folder / "headway.toml").write_text(MANIFEST)
    repository.git("add", ".")
    repository.git("commit", "-q", "-m", "app")
    body = {"name": repository.folder.name, "runtime": "auto", "profile": "auto"}
    made = caller.finish(caller.post("/v1/sites", {**body, "repository": repository.folder.as_uri()}))
    site = caller.get(f"/v1/sites/{made['resource']['id']}")
    env = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}"
    target = {"ref": "main", "target": site["production_env_id"]}
    caller.finish(caller.post(f"/v1/sites/{site['id']}/deployments", target))
    follower = Follower(Cli(stack, site["id"]))

    def seen() -> list[int]:
        return ticks(follower.lines)

    def ahead(by: int) -> None:
        reached = max(seen(), default=0) + by
        until(lambda: max(seen(), default=0) >= reached, f"tick {reached} is followed")

    try:
        ahead(10)
        for name in ("host", "api", "host", "api"):
            kill(stack, name)
            ahead(40)
    finally:
        follower.stop()
    numbers = seen()
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))

    def kept() -> list[int]:
        with contextlib.suppress(httpx.HTTPError):
            return ticks([row["line"] for row in caller.get(f"{env}/logs?tail=1000")])
        return []

    until(lambda: bool(kept()), "the API answers")
    found = kept()
    assert found == list(range(found[0], found[0] + len(found)))
    assert set(numbers) <= set(found)
