"""What Caddy writes of each request, and what it leaves out: a real Caddy."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.hosting.access import START, AccessLog, Request
from adapters.router.caddy import ACCESS_LOG, SOCKETS, Logged
from tests.adapters.sites import Machine, running_server

SECRETS = ("token=hunter2", "session=hunter2", "Bearer hunter2", "key-hunter2", "referer-hunter2", "127.0.0.1")


def serve(machine: Machine, folder: Path, env_id: str, stop: threading.Event) -> None:
    """A service of this environment that answers 418."""
    release = machine.host.environment(env_id).release(9_000)
    release.mkdir()
    for marker in (f"@9000+{env_id}", "service"):
        (release / marker).touch()
    path = folder / "sock"
    for number in range(SOCKETS):
        (release / f"sock.{number}").symlink_to(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    listener.settimeout(0.1)

    def answer() -> None:
        with listener:
            while not stop.is_set():
                try:
                    line, _ = listener.accept()
                except TimeoutError:
                    continue
                with line:
                    line.settimeout(10)
                    line.recv(65536)
                    line.sendall(b"HTTP/1.1 418 Teapot\r\nContent-Length: 5\r\nSet-Cookie: session=hunter2\r\n")
                    line.sendall(b"Connection: close\r\n\r\nshort")

    threading.Thread(target=answer).start()
    machine.host.environment(env_id).switch(9_000)


def until(true: Callable[[], bool], seen: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, seen()
        time.sleep(0.05)


@pytest.mark.parametrize("logged", ["services", "all", "off"])
def test_whose_requests_are_logged_and_what_of_them(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, logged: Logged
) -> None:
    machine, run = Machine(tmp_path / "host"), tmp_path_factory.mktemp("r")
    static, _ = machine.site({"index.html": b"page"})
    app, env_id = machine.site({"index.html": b"page"})
    stop = threading.Event()
    serve(machine, run, env_id, stop)
    log = AccessLog(run / "caddy" / ACCESS_LOG)

    def requests() -> list[Request]:
        return log.read(START)[0]

    try:
        with running_server(machine.host.folders, run, logged=logged) as server:
            assert server.get("/?token=hunter2", static).body == b"page"
            fields = {"Cookie": "session=hunter2", "Authorization": "Bearer hunter2", "X_Api_Key": "key-hunter2"}
            answer = server.get("/tea/pot?token=hunter2", app, Referer="referer-hunter2", **fields)
            assert answer.status == 418
            assert server.get("/", "nobody.localhost").status == 404
            wanted = {"services": ["/tea/pot"], "all": ["/", "/tea/pot", "/"], "off": []}[logged]
            until(lambda: [one.path for one in requests()] == wanted, requests)
    finally:
        stop.set()
    if logged == "off":
        assert not log.path.exists()
        return
    found = next(one for one in requests() if one.path == "/tea/pot")
    assert (found.host, found.method, found.status, found.size) == (app, "GET", 418, 5)
    assert 0 < found.milliseconds < 20_000
    text = log.path.read_text()
    assert not [secret for secret in SECRETS if secret in text]
    assert log.path.stat().st_mode & 0o027 == 0
    # Whatever was asked before is not asked again, and it is not on Caddy's own standard error either.
    assert log.read(requests()[-1].place)[0] == []
    assert "handled request" not in server.log.read_text()
