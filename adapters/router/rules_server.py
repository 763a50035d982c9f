"""The local rules socket: Caddy asks it about each request to a site with headers or redirects.

A request carries the site's `Host`, the pinned release in `Headway-Release`, and the visitor's own target. A redirect
is answered as it is; 200 means that Caddy serves the file itself, with the headers of the answer. It reads
`ROUTES/<host>/r/<seq>/rules`, keeps the compiled rules, and looks at the file's identity each time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
from collections import OrderedDict
from pathlib import Path
from typing import Final

from adapters.router.gate import GATE, Gatekeeper, Verdict
from adapters.router.routes import HOSTNAME
from adapters.router.rules import SERVE, Answer, Rules, read_rules
from headway.errors import HeadwayError

MAX_HEAD: Final = 128 << 10
# A longer path names no file.
MAX_TARGET: Final = 8 << 10
KEPT: Final = 1_000
# Of rules' files: a site that is deployed all day may have a quarter of a mebibyte of them in each release.
KEPT_BYTES: Final = 32 << 20

_HOST = re.compile(HOSTNAME)
_REASONS: Final = {
    204: "No Content",
    301: "Moved Permanently",
    302: "Found",
    307: "Temporary Redirect",
    308: "Permanent Redirect",
    401: "Unauthorized",
    503: "Service Unavailable",
}
log = logging.getLogger("headway.rules")


class RulesBook:
    """The compiled rules of the releases that were asked for, least recently used out first."""

    def __init__(self, routes: Path, *, kept: int = KEPT) -> None:
        self._routes = os.fspath(routes)
        self._kept = kept
        self._known: OrderedDict[tuple[int, int, int, int], Rules | None] = OrderedDict()
        self._bytes = 0

    def answer(self, host: str, release: str, target: str) -> Answer:
        """What to do with a request. Rules that cannot be read never take a site down: it is served plain."""
        if len(target) > MAX_TARGET or not _HOST.fullmatch(host) or not (release.isascii() and release.isdecimal()):
            return SERVE
        rules = self._rules(f"{self._routes}/{host}/r/{release}/rules")
        return SERVE if rules is None else rules.answer(target)

    def _rules(self, path: str) -> Rules | None:
        try:
            at = os.stat(path)
        except OSError:
            return None
        key = (at.st_dev, at.st_ino, at.st_mtime_ns, at.st_size)
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        rules = self._known[key] = _read(path)
        self._bytes += at.st_size
        while len(self._known) > self._kept or (self._bytes > KEPT_BYTES and len(self._known) > 1):
            (*_, size), _ = self._known.popitem(last=False)
            self._bytes -= size
        return rules


def _read(path: str) -> Rules | None:
    try:
        with open(path, "rb") as file:
            return read_rules(json.load(file))
    except (OSError, ValueError, TypeError, HeadwayError) as error:
        log.warning("rules of a release cannot be read: %s", error)
        return None


class RulesProtocol(asyncio.Protocol):
    """HTTP/1.1 with keep-alive and pipelining: all that a local proxy sends.

    A request with a body is refused and the connection ended: what follows a head here must be another head, or one
    visitor's bytes would be read as the beginning of the next visitor's request.
    """

    def __init__(self, book: RulesBook, gate: Gatekeeper) -> None:
        self._book = book
        self._gate = gate
        self._looking: set[asyncio.Task[None]] = set()
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what asyncio promises to a stream protocol
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                break
            self._buffer = rest
            self._reply(head)
            if self._transport is None or self._transport.is_closing():
                return
        if len(self._buffer) > MAX_HEAD:
            self._refuse()

    def _reply(self, head: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        request = lines[0].split(" ")
        if len(request) != 3 or request[0] != "GET" or not request[1].startswith("/"):
            return self._refuse()
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if fields.get("content-length", "0") != "0" or "transfer-encoding" in fields:
            return self._refuse()
        host = fields.get("host", "").partition(":")[0]
        if GATE in fields:
            return self._look(host, fields)
        self._write(_render(self._book.answer(host, fields.get("headway-release", ""), request[1])))

    def _look(self, host: str, fields: dict[str, str]) -> None:
        """Answered when it is known, on a connection that is used once: a password takes its time."""
        if not _HOST.fullmatch(host):
            return self._refuse()

        async def look() -> None:
            try:
                verdict = await self._gate.look(host, fields)
            except Exception:
                log.exception("nobody passes")
                return self._refuse()
            self._write(_verdict(verdict))
            if self._transport is not None:
                self._transport.close()

        task = asyncio.get_running_loop().create_task(look())
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    def _refuse(self) -> None:
        self._buffer = b""
        self._write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        if self._transport is not None:
            self._transport.close()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _render(answer: Answer) -> bytes:
    if answer.location:
        lines = [f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}", f"Location: {answer.location}"]
    else:
        lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in answer.headers)]
    return ("\r\n".join([*lines, "Content-Length: 0"]) + "\r\n\r\n").encode("latin-1")


def _verdict(verdict: Verdict) -> bytes:
    body = verdict.body.encode()
    lines = [f"HTTP/1.1 {verdict.status} {_REASONS[verdict.status]}"]
    lines += [f"{name}: {value}" for name, value in verdict.fields]
    length = [] if verdict.status == 204 else [f"Content-Length: {len(body)}"]
    return ("\r\n".join([*lines, *length, "Connection: close"]) + "\r\n\r\n").encode("latin-1") + body


async def start(routes: Path, socket: Path) -> asyncio.AbstractServer:
    """Listen. The socket takes its name in one step, so that a successor leaves no gap behind a predecessor."""
    book, gate = RulesBook(routes), Gatekeeper(routes)
    starting = socket.with_name(f"{socket.name}.{os.getpid()}")
    starting.unlink(missing_ok=True)
    server = await asyncio.get_running_loop().create_unix_server(lambda: RulesProtocol(book, gate), starting)
    # The web server may have another uid: its group is that of the folder.
    starting.chmod(0o660)
    starting.rename(socket)
    return server


def serve(routes: Path, socket: Path) -> None:
    """Answer until SIGTERM or SIGINT."""
    asyncio.run(_serve(routes, socket))


async def _serve(routes: Path, socket: Path) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await start(routes, socket)
    await stop.wait()
    server.close()
