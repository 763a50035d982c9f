"""A real HTTP server that answers what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Reply:
    """`body` as JSON unless it is bytes; `hang` keeps the connection open behind it until the test ends."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    hang: bool = False


class ApiDouble:
    """`on(method, path, *replies)`: one after another, the last for ever; `path` without its query."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.over = threading.Event()
        self._replies: dict[tuple[str, str], list[Reply | Callable[[Asked], Reply]]] = {}
        self.url = ""

    def on(self, method: str, path: str, *replies: Reply | Callable[[Asked], Reply]) -> None:
        self._replies[method, path] = list(replies)

    def data(self, method: str, path: str, data: Any, *, status: int = 200) -> None:
        body: dict[str, Any] = {"data": data, "request_id": "req_TEST"}
        if isinstance(data, list):
            body["pagination"] = {"next_cursor": None, "has_more": False}
        self.on(method, path, Reply(status, body))

    def problem(self, method: str, path: str, status: int, code: str, type: str, **headers: str) -> None:
        self.on(method, path, problem(status, code, type, **headers))

    def answer(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        waiting = self._replies.get((asked.method, asked.path.partition("?")[0]))
        if waiting is None:
            return problem(404, "route.not_found", "not_found")
        reply = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return reply(asked) if callable(reply) else reply

    def calls(self, method: str, path: str) -> list[Asked]:
        return [one for one in self.asked if one.method == method and one.path.partition("?")[0] == path]


def problem(status: int, code: str, type: str, **headers: str) -> Reply:
    error = {"type": type, "code": code, "message": f"About {code}.", "doc_url": "https://docs.test/"}
    return Reply(status, {"error": error, "request_id": "req_TEST"}, headers)


def events(*frames: tuple[str, Any], ids: bool = True, hang: bool = False) -> Reply:
    """A stream: `(event, data)` each; a frame `("ping", None)` is a comment."""
    text = "retry: 2000\n\n"
    for number, (event, data) in enumerate(frames, 1):
        if event == "ping":
            text += ": ping\n\n"
            continue
        text += f"id: {number}\n" if ids and event != "end" else ""
        text += f"event: {event}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
    return Reply(200, text.encode(), {"Content-Type": "text/event-stream"}, hang)


@contextmanager
def running() -> Iterator[ApiDouble]:
    double = ApiDouble()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(length) if length else b""
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = double.answer(Asked(self.command, self.path, headers, json.loads(raw) if raw else None))
            if reply.status == 0:  # hang up without an answer
                self.close_connection = True
                self.connection.close()
                return
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            given = {"Content-Type": "application/json", **reply.headers}
            for name, value in given.items():
                self.send_header(name, value)
            if given["Content-Type"] == "text/event-stream":
                self.send_header("Connection", "close")
            else:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
            if reply.hang:
                double.over.wait(30)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    double.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield double
    finally:
        double.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
