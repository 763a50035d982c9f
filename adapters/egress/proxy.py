"""The proxy of one run: CONNECT, plain HTTP in absolute form, and doors that lead to one host each.

A door is a loopback address inside the sandbox that stands for an allowed host (its name is in the sandbox's
/etc/hosts), so that ssh and clients that know no proxy work too. All three ways pass the same judgement: the pair
must be allowed, the name is resolved once, and the connection goes to an address that was checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from adapters.egress.policy import EgressPolicy, normal

CONNECT = re.compile(r"^CONNECT (\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253}):(\d{1,5}) HTTP/1\.[01]$")
ABSOLUTE = re.compile(r"^([A-Z]{1,16}) (http://\S+) (HTTP/1\.[01])$")
HOST = re.compile(r"[0-9a-z._:-]{1,253}")
HOP_BY_HOP = ("proxy-", "connection:", "keep-alive:")
# A build runs at low weight: on a full machine it opens many connections at once, and says its first word on them much
# later, when an origin may have hung up already: some wait no longer than ten seconds.
HEAD_SECONDS, CONNECT_SECONDS, WORD_SECONDS = 60.0, 15.0, 300.0
CHUNK = 1 << 16
MOST_NOTICES = 100
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Refused(Exception):
    """`reason` completes `egress: refused host:port (reason)`."""

    def __init__(self, destination: str, reason: str, *, denied: bool = True) -> None:
        super().__init__(reason)
        self.destination, self.reason, self.denied = destination, reason, denied

    @property
    def line(self) -> str:
        return f"egress: {'refused' if self.denied else 'no answer from'} {self.destination} ({self.reason})"


@dataclass(frozen=True)
class Request:
    host: str
    port: int
    tunnel: bool
    head: bytes = b""


@dataclass(frozen=True)
class Door:
    listener: socket.socket
    host: str
    port: int


def parse(head: bytes) -> Request:
    """The destination of a proxy request; a plain one is rewritten for its origin. Errors: Refused."""
    first, *lines = head.decode("latin-1").split("\r\n")
    if match := CONNECT.match(first):
        return Request(normal(match[1]), int(match[2]), tunnel=True)
    if match := ABSOLUTE.match(first):
        try:
            url = urlsplit(match[2])
            host, port = normal(url.hostname or ""), url.port or 80
        except ValueError:
            raise Refused(repr(first[:200]), "not a proxy request") from None
        if not HOST.fullmatch(host):
            raise Refused(repr(first[:200]), "not a proxy request")
        kept = [line for line in lines if line and not line.lower().startswith(HOP_BY_HOP)]
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        text = "\r\n".join([f"{match[1]} {path} {match[3]}", *kept, "Connection: close", "", ""])
        return Request(host, port, tunnel=False, head=text.encode("latin-1"))
    raise Refused(repr(first[:200]), "not a proxy request")


class EgressProxy:
    """Serves already listening sockets from a thread of its own until `stop`."""

    def __init__(self, policy: EgressPolicy) -> None:
        self._policy = policy
        self._left = policy.budget
        self._notices: deque[str] = deque(maxlen=MOST_NOTICES)
        self._said: set[str] = set()
        self._denied: dict[str, None] = {}
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._places: asyncio.Semaphore | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._accepting: list[tuple[socket.socket, asyncio.Task[None]]] = []
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def denied(self) -> tuple[str, ...]:
        """`host:port` of what was refused, each once, in order; the first hundred."""
        return tuple(self._denied)

    def notices(self) -> list[str]:
        """The lines about refusals since the last call; safe from any thread."""
        lines = []
        with contextlib.suppress(IndexError):
            while True:
                lines.append(self._notices.popleft())
        return lines

    def start(self, listener: socket.socket, doors: Sequence[Door] = ()) -> None:
        """Take over the sockets and serve; returns once all of them accept."""
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listener, doors, ready), name="egress", daemon=True)
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        """Close every connection and every socket; idempotent."""
        if self._thread is None:
            self._loop.close()
            return
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self, listener: socket.socket, doors: Sequence[Door], ready: threading.Event) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._listen(listener, doors))
            ready.set()
            loop.run_forever()
            loop.run_until_complete(self._close())
        finally:
            ready.set()
            loop.close()

    async def _listen(self, listener: socket.socket, doors: Sequence[Door]) -> None:
        self._places = asyncio.Semaphore(self._policy.connections)
        for one, door in ((listener, None), *((door.listener, door) for door in doors)):
            one.setblocking(False)
            self._accepting.append((one, self._loop.create_task(self._accept(one, self._places, door))))

    async def _accept(self, listener: socket.socket, places: asyncio.Semaphore, door: Door | None) -> None:
        """Those for whom there is no place wait in the kernel: each that is accepted is a descriptor of this process,
        which other runs share."""
        while True:
            try:
                one, _ = await self._loop.sock_accept(listener)
            except OSError:  # it has hung up already, or there is no descriptor left
                await asyncio.sleep(0.1)
                continue
            try:
                await places.acquire()
            except asyncio.CancelledError:
                one.close()
                raise
            task = self._loop.create_task(self._serve(one, door))
            self._open.add(task)
            task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        assert self._places is not None  # noqa: S101
        self._open.discard(task)
        self._places.release()

    async def _close(self) -> None:
        for _, accepting in self._accepting:
            accepting.cancel()
        await asyncio.gather(*(accepting for _, accepting in self._accepting), return_exceptions=True)
        for listener, _ in self._accepting:
            listener.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        for task in tuple(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await asyncio.sleep(0)

    async def _serve(self, one: socket.socket, door: Door | None) -> None:
        try:
            reader, writer = await asyncio.open_connection(sock=one)
        except BaseException:
            one.close()
            raise
        self._writers.add(writer)
        try:
            await (self._proxy(reader, writer) if door is None else self._pass(reader, writer, door))
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass  # either side hung up, or sent no request
        finally:
            writer.close()
            self._writers.discard(writer)

    async def _proxy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_SECONDS)
        try:
            request = parse(head)
            upstream = await self._reach(request.host, request.port)
        except Refused as refused:
            self._note(refused)
            status = "403 Forbidden" if refused.denied else "502 Bad Gateway"
            body = f"{refused.line}\n".encode()
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
                "Connection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
            writer.write_eof()
            return
        if request.tunnel:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            upstream[1].write(request.head)
        again = (request.host, request.port) if request.tunnel else None
        await self._join(f"{request.host}:{request.port}", (reader, writer), upstream, again)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, door: Door) -> None:
        try:
            upstream = await self._reach(door.host, door.port)
        except Refused as refused:
            self._note(refused)
            return
        await self._join(f"{door.host}:{door.port}", (reader, writer), upstream)

    async def _reach(self, host: str, port: int) -> Ends:
        destination = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if reason := self._policy.refusal(host, port):
            raise Refused(destination, reason)
        if self._left <= 0:
            raise Refused(destination, "byte budget spent")
        try:
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise Refused(destination, "the name does not resolve", denied=False) from None
        addresses = self._policy.usable(host, dict.fromkeys(str(info[4][0]) for info in found))
        if not addresses:
            raise Refused(destination, "resolves to an address that is not public")
        for address in addresses[:4]:
            with contextlib.suppress(OSError):
                return await asyncio.wait_for(asyncio.open_connection(address, port), CONNECT_SECONDS)
        raise Refused(destination, "connection failed", denied=False)

    async def _join(self, destination: str, inner: Ends, outer: Ends, again: tuple[str, int] | None = None) -> None:
        """`again`: whom to call once more where the origin has hung up before anybody said a word."""
        told, heard = (asyncio.ensure_future(end[0].read(CHUNK)) for end in (inner, outer))
        self._writers.add(outer[1])
        try:
            if again is not None:
                await asyncio.wait((told, heard), return_when=asyncio.FIRST_COMPLETED)
                if _hung_up(heard):
                    if not await asyncio.wait_for(told, WORD_SECONDS):
                        return
                    outer[1].close()
                    self._writers.discard(outer[1])
                    outer = await self._reach(*again)
                    self._writers.add(outer[1])
                    heard = asyncio.ensure_future(outer[0].read(CHUNK))
            await asyncio.gather(
                self._pump(destination, told, inner[0], outer[1]), self._pump(destination, heard, outer[0], inner[1])
            )
        except Refused as refused:
            self._note(refused)
        finally:
            told.cancel()
            heard.cancel()
            await asyncio.gather(told, heard, return_exceptions=True)
            outer[1].close()
            self._writers.discard(outer[1])

    async def _pump(
        self, destination: str, first: asyncio.Future[bytes], source: asyncio.StreamReader, sink: asyncio.StreamWriter
    ) -> None:
        data = await first
        while data:
            self._left -= len(data)
            if self._left < 0:
                self._note(Refused(destination, "byte budget spent"))
                raise ConnectionAbortedError
            sink.write(data)
            await sink.drain()
            data = await source.read(CHUNK)
        if sink.can_write_eof():
            sink.write_eof()

    def _note(self, refused: Refused) -> None:
        if refused.denied and len(self._denied) < MOST_NOTICES:
            self._denied.setdefault(refused.destination)
        if refused.line not in self._said and len(self._said) < MOST_NOTICES:
            self._said.add(refused.line)
            self._notices.append(refused.line)


def _hung_up(heard: asyncio.Future[bytes]) -> bool:
    """Whether a first read has ended without a byte."""
    return heard.done() and (heard.exception() is not None or not heard.result())
