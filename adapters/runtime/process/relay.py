"""From the instance's unix socket to the port on which the app listens, inside the app's network namespace.

Bytes only: half-closes, WebSockets and downloads of any length pass. Each direction holds at most one chunk, so a
slow reader slows the writer. A connection that comes before the app listens is closed: whoever probes tries again.
"""

from __future__ import annotations

import contextlib
import errno
import socket

from adapters.runtime.process.loop import GONE, READ, WRITE, Loop

CHUNK = 1 << 18
AT_ONCE = 64
CONNECT_SECONDS = 10.0
LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
BUSY = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
BREATH = 0.1  # seconds without accepting when descriptors are used up


class _End:
    """One side of a connection. `pending` waits to be written to it; `ended` says that nothing more is read from it."""

    __slots__ = ("ended", "mask", "peer", "pending", "shut", "sock")

    peer: _End

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.pending = b""
        self.ended = self.shut = False
        self.mask = 0


class Relay:
    """Accepts from the moment it is made until `close_door`; connections go on after that."""

    def __init__(self, loop: Loop, door: socket.socket, port: int) -> None:
        self._loop, self._door, self._port = loop, door, port
        self._buffer = bytearray(CHUNK)
        self._view = memoryview(self._buffer)
        self._open: set[_End] = set()  # the outer ends
        loop.watch(door.fileno(), READ, self._accept)

    def move(self, door: socket.socket) -> None:
        """Accept there from now on; connections go on."""
        self.close_door()
        self._door = door
        self._loop.watch(door.fileno(), READ, self._accept)

    @property
    def connections(self) -> int:
        return len(self._open)

    @property
    def unsent(self) -> int:
        """How many of them wait for more than the end: of use when the app is gone."""
        return sum(1 for end in self._open if end.pending or not getattr(end, "peer", end).ended)

    def close_door(self) -> None:
        """Take no new connection."""
        if self._door.fileno() >= 0:
            self._loop.forget(self._door.fileno())
            self._door.close()

    def close(self) -> None:
        """End everything at once."""
        self.close_door()
        for end in tuple(self._open):
            self._drop(end)

    def _accept(self, _: int) -> None:
        for _ in range(AT_ONCE):
            try:
                sock, _ = self._door.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in BUSY:
                    self._pause()
                return
            sock.setblocking(False)
            outer = _End(sock)
            self._open.add(outer)
            self._dial(outer, 0)

    def _pause(self) -> None:
        number = self._door.fileno()
        self._loop.forget(number)

        def again() -> None:
            if self._door.fileno() >= 0:
                self._loop.watch(number, READ, self._accept)

        self._loop.after(BREATH, again)

    def _dial(self, outer: _End, attempt: int) -> None:
        family, address = LOOPBACKS[attempt]
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:
            return self._refuse(outer)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex((address, self._port))
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            return self._dial(outer, attempt + 1) if attempt + 1 < len(LOOPBACKS) else self._refuse(outer)
        number = sock.fileno()

        def late() -> None:
            self._loop.forget(number)
            sock.close()
            self._refuse(outer)

        timer = self._loop.after(CONNECT_SECONDS, late)

        def connected(_: int) -> None:
            timer.cancel()
            self._loop.forget(number)
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                sock.close()
                return self._dial(outer, attempt + 1) if attempt + 1 < len(LOOPBACKS) else self._refuse(outer)
            self._join(outer, _End(sock))

        self._loop.watch(number, WRITE, connected)

    def _refuse(self, outer: _End) -> None:
        self._open.discard(outer)
        outer.sock.close()

    def _join(self, outer: _End, inner: _End) -> None:
        outer.peer, inner.peer = inner, outer
        for end in (outer, inner):
            self._look(end)
        self._read(outer)  # mostly the request is there already

    def _look(self, end: _End) -> None:
        """Watch for what can be done: reading while the other side takes it, writing while something waits."""
        mask = (0 if end.ended or end.peer.pending else READ) | (WRITE if end.pending else 0)
        if mask == end.mask:
            return
        end.mask = mask
        number = end.sock.fileno()
        if not mask:
            # A closed peer is reported whatever is asked for: not to be asked is the only rest.
            return self._loop.forget(number)
        self._loop.watch(number, mask, lambda events: self._event(end, events))

    def _event(self, end: _End, events: int) -> None:
        if end.pending:
            self._write(end)  # also where only a hang-up is reported: writing says so
        if events & ~WRITE and end.sock.fileno() >= 0 and not end.ended and not end.peer.pending:
            self._read(end, gone=bool(events & GONE))

    def _read(self, end: _End, gone: bool = False) -> None:
        try:
            count = end.sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            return self._drop(end)
        peer = end.peer
        if count == 0:
            end.ended = True
            if gone:
                peer.ended, end.pending = True, b""  # nobody is there to be answered
            return self._settle(end)
        try:
            sent = peer.sock.send(self._view[:count])
        except BlockingIOError:
            sent = 0
        except OSError:
            return self._drop(end)
        if sent < count:
            peer.pending = bytes(self._view[sent:count])
            self._look(end)
            self._look(peer)

    def _write(self, end: _End) -> None:
        try:
            sent = end.sock.send(end.pending)
        except BlockingIOError:
            return
        except OSError:
            return self._drop(end)
        end.pending = end.pending[sent:]
        if not end.pending:
            self._settle(end.peer)

    def _settle(self, end: _End) -> None:
        """What was read from `end` is written: pass its end on, and let go when both sides are done."""
        peer = end.peer
        if end.ended and not peer.pending and not peer.shut:
            peer.shut = True
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_WR)
        if end.ended and peer.ended and not end.pending and not peer.pending:
            return self._drop(end)
        self._look(end)
        self._look(peer)

    def _drop(self, end: _End) -> None:
        self._open.discard(end)
        both = [end]
        if peer := getattr(end, "peer", None):
            self._open.discard(peer)
            both.append(peer)
        for one in both:
            if one.sock.fileno() >= 0:
                self._loop.forget(one.sock.fileno())
                one.sock.close()
