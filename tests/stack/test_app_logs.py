"""An app's lines and its visitors' requests, from the app to `headway logs` and `headway metrics`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from bench.client import Caller
from bench.stack import Stack
from tests.stack.conftest import NewRepository
from tests.stack.sites import visit

pytestmark = pytest.mark.slow
APP = """
import http.server, os, sys

class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("EDITION saw", self.path, flush=True)
        self.send_response(500 if self.path.startswith("/broken") else 200)
        self.end_headers()
        self.wfile.write(b"EDITION")

    def log_message(self, *words):
        pass

print("EDITION listens \\x1b[31min red\\x1b[0m", flush=True)
print("EDITION warns", file=sys.stderr, flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"""
MANIFEST = '[build]\ncommand = ""\n\n[run]\ncommand = "exec python3 app.py"\n'


def until(true: Callable[[], Any], what: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)


class Cli:
    def __init__(self, stack: Stack, site: str) -> None:
        self.site = site
        self.env = {**os.environ, "HEADWAY_API_URL": stack.api, "HEADWAY_TOKEN": stack.key}

    def argv(self, verb: str, *words: str) -> list[str]:
        place = ("--site", self.site, "--env", "production")
        return [sys.executable, "-m", "headway", verb, *place, *words]

    def __call__(self, verb: str, *words: str) -> str:
        done = subprocess.run(
            self.argv(verb, *words), env=self.env, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


class Follower:
    """`headway logs --follow`, read as it prints."""

    def __init__(self, cli: Cli) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(cli.argv("logs", "--follow"), env=cli.env, stdout=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.lines.append(line)

    def saw(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.reader.join(20)


def test_lines_and_requests_of_an_app(stack: Stack, caller: Caller, new_repository: NewRepository) -> None:
    repository = new_repository({"app.py": APP.replace("EDITION", "first"), "headway.toml": MANIFEST})
    body = {"name": f"logs-{repository.path.name}", "runtime": "auto", "profile": "auto"}
    made = caller.finish(caller.post("/v1/sites", {**body, "repository": repository.path.as_uri()}))
    site = caller.get(f"/v1/sites/{made['resource']['id']}")
    env = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}"
    hostname = urlsplit(caller.get(env)["url"]).hostname or ""
    cli = Cli(stack, site["id"])

    def push() -> None:
        target = {"ref": "main", "target": site["production_env_id"]}
        caller.finish(caller.post(f"/v1/sites/{site['id']}/deployments", target))

    push()
    follower = Follower(cli)
    try:
        until(lambda: follower.saw("first warns"), lambda: follower.lines)
        assert visit(stack, hostname, "/hello?token=secret").text == "first"
        until(lambda: follower.saw("first saw /hello"), lambda: follower.lines)
        repository.commit({"app.py": APP.replace("EDITION", "second")})
        push()
        until(lambda: follower.saw("second listens"), lambda: follower.lines)
        assert visit(stack, hostname, "/again").text == "second"
        assert visit(stack, hostname, "/broken").status == 500
        until(lambda: follower.saw("second saw /broken"), lambda: follower.lines)
    finally:
        follower.stop()
    assert not any("\x1b" in line for line in follower.lines)
    assert len([line for line in follower.lines if "first listens" in line]) == 1

    rows = json.loads(cli("logs", "--json"))
    current = next(row for row in caller.get(f"{env}/releases") if row["current"])
    of_release = json.loads(cli("logs", "--json", "--release", current["id"], "--instance", "web.0"))
    assert {row["release_id"] for row in of_release} == {current["id"]}
    assert [row for row in rows if row["release_id"] == current["id"]] == of_release
    assert any(row["stream"] == "stderr" and row["line"] == "second warns" for row in of_release)

    def asked() -> list[str]:
        return [row["path"] for row in caller.get(f"{env}/request-logs")]

    until(lambda: "/broken" in asked(), asked)
    assert asked()[-3:] == ["/hello", "/again", "/broken"]
    metrics = caller.get(f"{env}/metrics?minutes=10")
    total = metrics["total"]
    assert (total["requests"], total["status_2xx"], total["status_5xx"]) == (3, 2, 1)
    assert 0 < total["p50_ms"] <= total["p99_ms"]
    assert "secret" not in (stack.data / "caddy" / "access.log").read_text()
    assert "3" in cli("metrics", "--minutes", "10")
