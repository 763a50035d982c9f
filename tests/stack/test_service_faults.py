"""Apps that misbehave, on the real stack: they are held, named, and nobody else notices."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from bench.client import Caller
from bench.stack import Stack
from tests.stack.conftest import NewRepository
from tests.stack.service_app import service
from tests.stack.sites import Place
from tests.stack.test_services import instances, until

Json = dict[str, Any]
pytestmark = pytest.mark.slow
APP = """
import base64, hashlib, http.server, json, os, socket, threading, time

def tried(work):
    try:
        work()
        return "done"
    except OSError as error:
        return type(error).__name__

def spy():
    found = {path: tried(lambda path=path: open(path, "rb").read(1)) for path in FILES}
    found |= {path: tried(lambda path=path: os.listdir(path)) for path in FOLDERS}
    for port in PORTS:
        found[str(port)] = tried(lambda port=port: socket.create_connection(("127.0.0.1", port), 3))
    def dial(path):
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(path)
    return found | {path + "!": tried(lambda path=path: dial(path)) for path in SOCKETS}

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/socket":
            return self.socket()
        if self.path == "/leak":
            hoard = []
            while True:
                hoard.append(bytearray(os.urandom(1 << 20)))
        if self.path == "/fork":
            while os.fork() >= 0:
                pass
        said = json.dumps(spy()) if self.path == "/spy" else "EDITION " + str(os.environ.get("TOKEN"))
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said.encode())

    def socket(self):
        self.close_connection = True
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.end_headers()
        while data := self.connection.recv(100):
            self.connection.sendall(b"EDITION:" + data)

    def log_message(self, *words):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
TOML = '[build]\ncommand = ""\n[run]\ncommand = "exec python3 app.py"\nmemory = "96 MB"\n'


def files(edition: str, **names: Any) -> dict[str, str]:
    app = APP.replace("EDITION", edition)
    for name in ("FILES", "FOLDERS", "PORTS", "SOCKETS"):
        app = app.replace(name, repr(names.get(name, [])))
    return {"app.py": app, "headway.toml": TOML}


@pytest.fixture(scope="module")
def place(stack: Stack, caller: Caller, new_repository: NewRepository) -> Place:
    repository = new_repository(files("first"))
    site = caller.new_site(f"s-{repository.path.name}", repository.path.as_uri(), runtime="auto")
    made = Place(stack, caller, site, repository)
    made.push()
    return made


def test_an_app_that_listens_on_another_port_is_never_visited(place: Place) -> None:
    before = place.page().text
    place.repository.commit(service("lost", start="os.environ['PORT'] = '9999'", timeout=2))
    error = place.failed(place.start_push())
    assert (error["code"], "listen on $PORT (8080)" in error["message"]) == ("roll.health_failed", True), error
    assert place.page().text == before


def test_an_app_that_ends_while_it_is_looked_at_says_why_and_every_look_is_told(place: Place) -> None:
    before = place.page().text
    place.repository.commit(service("quits", start="time.sleep(0.3); sys.exit('no sea today')", timeout=10))
    job = place.start_push()
    error = place.failed(job)
    assert error["code"] in ("roll.health_failed", "roll.start_failed"), error
    assert "no sea today" in error["message"], error
    told = place.caller.http.get(f"/v1/jobs/{job['id']}/stream", headers={"Last-Event-ID": "0"}).text
    assert told.count("health of web.0:") == error["looks"], told
    assert place.page().text == before


def test_an_app_reaches_nothing_of_the_host_or_of_headway(place: Place) -> None:
    data = place.stack.data
    endpoints = json.loads((data / "endpoints.json").read_text())
    ports = sorted({urlsplit(one if "//" in one else f"//{one}").port for one in endpoints.values()})
    secret = ["admin.key", "secrets/config.key", "host/identity.key", "db/headway.db", "secrets/s3.json"]
    names = [data / one for one in secret]
    assert all(path.exists() for path in names)
    folders = [data, data / "host" / "trees", data / "host" / "env" / place.site.production, Path.home()]
    sockets = [data / "run" / "broker.sock", *sorted((data / "host" / "run" / "s").iterdir())[:3]]
    asked = {
        "FILES": ["/etc/shadow", *map(str, names)],
        "FOLDERS": list(map(str, folders)),
        "PORTS": ports,
        "SOCKETS": list(map(str, sockets)),
    }
    place.repository.commit(files("spy", **asked))
    place.push()
    found = json.loads(place.page("/spy").text)
    assert len(found) == sum(map(len, asked.values()))
    assert {name for name, how in found.items() if how == "done"} == set()


def test_what_takes_all_memory_or_forks_without_end_is_started_again_alone(
    place: Place, stack: Stack, caller: Caller, new_repository: NewRepository
) -> None:
    other = new_repository({"index.html": "neighbour"})
    site = caller.new_site(f"s-{other.path.name}", other.path.as_uri())
    neighbour = Place(stack, caller, site, other)
    neighbour.push()
    place.repository.commit(files("hungry"))
    place.push()
    first = pid_of(place)
    with asking(place, "/leak"):
        until(lambda: served(place) and pid_of(place) != first, "it was started again")
    with asking(place, "/fork"):
        assert neighbour.page().text == "neighbour"
    until(lambda: served(place), "it is served")
    assert neighbour.page().text == "neighbour"
    whats = [row["what"] for row in place.get(place.site.production, "drifts?limit=100")]
    assert any("memory" in what for what in whats), whats


@contextlib.contextmanager
def asking(place: Place, path: str) -> Iterator[None]:
    """Somebody waits for an answer that may never come."""
    with socket.create_connection(("127.0.0.1", place.stack.sites_port), 10) as visitor:
        visitor.sendall(f"GET {path} HTTP/1.1\r\nHost: {place.site.production_host}\r\n\r\n".encode())
        yield


def pid_of(place: Place) -> int | None:
    """That of the newest release: earlier ones are warm."""
    running = [one for one in instances(place) if one.state == "running"]
    return max(running, key=lambda one: one.ref.seq).pid if running else None


def served(place: Place) -> bool:
    try:
        return place.page().text.startswith("hungry")
    except OSError:
        return False


def test_a_websocket_goes_on_over_a_switch_with_whom_it_was_opened(place: Place, stack: Stack) -> None:
    place.repository.commit(files("old"))
    place.push()
    with socket.create_connection(("127.0.0.1", stack.sites_port), 30) as visitor:
        asked = f"GET /socket HTTP/1.1\r\nHost: {place.site.production_host}\r\nConnection: Upgrade\r\n"
        visitor.sendall(f"{asked}Upgrade: websocket\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += visitor.recv(1)
        assert head.startswith(b"HTTP/1.1 101")
        visitor.sendall(b"one")
        assert visitor.recv(100) == b"old:one"
        place.repository.commit(files("new"))
        place.push()
        assert place.page().text.startswith("new")
        visitor.sendall(b"two")
        assert visitor.recv(100) == b"old:two"


def test_a_secret_that_was_rotated_comes_back_with_its_release_until_it_is_revoked(place: Place) -> None:
    env = place.site.production
    path = place.path(env, "secrets", "TOKEN")
    seen = {}
    for value in ("token-one", "token-two"):
        place.caller.http.put(path, json={"value": value}).raise_for_status()
        place.repository.commit(files(value))
        place.push()
        seen[value] = next(row["id"] for row in place.releases(env) if row["current"])
        assert place.page().text == f"{value} {value}"
    place.caller.finish(place.start_rollback(env, seen["token-one"]))
    assert place.page().text == "token-one token-one"
    place.caller.finish(place.start_rollback(env, seen["token-two"]))
    versions = place.caller.get(f"{path}/versions")
    oldest = min(versions, key=lambda row: row["version"])
    place.caller.http.post(f"{path}/revoke", json={"version_id": oldest["version_id"]}).raise_for_status()
    job = place.caller.finish(place.start_rollback(env, seen["token-one"]))
    assert place.page().text == "token-one token-two"
    assert [one["name"] for one in job["result"]["config_replaced"]] == ["TOKEN"]
