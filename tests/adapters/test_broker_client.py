from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from adapters.broker import BrokerClient
from adapters.unix_sockets import AnySocket
from headway.broker import Begin, Contents, Event, Events
from headway.errors import HeadwayError


class Server(socketserver.ThreadingUnixStreamServer):
    """Answers by script, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.asked: list[tuple[str, str, str, Any]] = []
        self.answers: list[tuple[int, Any]] = []
        super().__init__(str(path), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.asked.append(
            (self.command, self.path, self.headers["authorization"], json.loads(body) if body else None)
        )
        status, document = self.server.answers.pop(0)
        if status == 0:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        raw = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST = _answer

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "b.sock") as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def client(tmp_path: Path, server: Server) -> Iterator[BrokerClient]:
    (tmp_path / "token").write_text("secret\n")
    made = BrokerClient(tmp_path / "b.sock", tmp_path / "token", patience=5)
    yield made
    made.close()


SPEC = {
    **{"build_id": "build_1", "job_id": "job_1", "site_id": "site_1", "env_id": "env_1", "attempt": 4},
    **{"repository": "hosted:site_1", "ref": "main", "default_branch": "main", "profile": "auto"},
    **{"clean": False, "allow_hosts": []},
}


def test_a_question_and_its_answer(server: Server, client: BrokerClient) -> None:
    server.answers = [(200, SPEC), (200, {"missing": ["a"]}), (200, {"cancel": True}), (200, {})]
    assert client.begin("build_1", Begin(attempt=1, worker="w")).attempt == 4
    assert client.missing("build_1", Contents(attempt=4, contents=[("a", 1)])).missing == ["a"]
    event = Event(kind="log", ts="2026-01-01T00:00:00.000Z", stream="stdout", line="\x00 é")
    assert client.append("job_1", Events(source="s", first=1, events=[event])).cancel
    client.health()
    assert [one[:3] for one in server.asked] == [
        ("POST", "/builds/build_1/begin", "Bearer secret"),
        ("POST", "/builds/build_1/contents", "Bearer secret"),
        ("POST", "/jobs/job_1/events", "Bearer secret"),
        ("GET", "/health", "Bearer secret"),
    ]
    assert server.asked[2][3]["events"][0]["line"] == "\x00 é"


def test_lost_connections_and_restarts_are_waited_out(server: Server, client: BrokerClient) -> None:
    server.answers = [(0, None), (503, {}), (0, None), (200, {"cancel": False})]
    assert client.append("job_1", Events(source="s", first=1, events=[])).cancel is False
    assert len(server.asked) == 4


def test_errors_keep_their_codes(server: Server, client: BrokerClient) -> None:
    stale = {"error": {"code": "attempt.stale", "message": "Another attempt.", "param": "attempt"}}
    server.answers = [(409, stale), (400, {"error": {"code": "new.code", "message": "m"}}), (500, "?"), (200, {"x": 1})]
    found = []
    for _ in range(4):
        with pytest.raises(HeadwayError) as caught:
            client.get_hostnames("env_1")
        found.append((caught.value.code, caught.value.param))
    assert found == [
        ("attempt.stale", "attempt"),
        ("internal.error", None),
        ("internal.error", None),
        ("internal.error", None),
    ]


# httpcore leaves a socket that could not connect to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_broker_that_stays_away_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    for path in (tmp_path / "none.sock", tmp_path / "token"):
        with pytest.raises(HeadwayError) as caught:
            BrokerClient(path, tmp_path / "token", patience=0.1).get_rollout("dep_1")
        assert caught.value.code == "service.unavailable"
        assert "secret" not in caught.value.message
    with pytest.raises(HeadwayError) as caught:
        BrokerClient(tmp_path / "none.sock", tmp_path / "no-token", patience=0).health()
    assert caught.value.code == "service.unavailable"


def test_of_a_folder_of_sockets_those_that_listen_are_asked(tmp_path: Path) -> None:
    """A replica that is dead leaves its socket behind; one alone is taken as it is."""
    with contextlib.ExitStack() as held:
        for name in ("a-dead", "b-one", "c-two"):
            made = held.enter_context(socket.socket(socket.AF_UNIX))
            made.bind(str(tmp_path / f"{name}.sock"))
            if name != "a-dead":
                made.listen()
        ways = AnySocket(tmp_path)
        assert [path.name for path in ways._sockets()] == ["b-one.sock", "c-two.sock"]
        ways._best = tmp_path / "c-two.sock"
        assert [path.name for path in ways._sockets()] == ["c-two.sock", "b-one.sock"]
        assert AnySocket(tmp_path / "a-dead.sock")._sockets() == []
        assert AnySocket(tmp_path / "b-one.sock")._sockets() == [tmp_path / "b-one.sock"]
    ways._best = None
    assert ways._sockets() == []
    with pytest.raises(HeadwayError, match="does not answer"):
        BrokerClient(tmp_path, _token(tmp_path), patience=0.0).health()


def _token(folder: Path) -> Path:
    (folder / "token").write_text("t")
    return folder / "token"
