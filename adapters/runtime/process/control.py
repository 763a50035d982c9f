"""How a driver speaks with a keeper: one JSON line each way over a unix socket that only its owner may use."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable
from typing import Any

from adapters.runtime.process.loop import READ, Loop

SECONDS = 5.0
LONGEST = 4096
Answer = Callable[[dict[str, Any]], dict[str, Any]]


def ask(path: str, **what: Any) -> dict[str, Any] | None:
    """The keeper's answer; None where no keeper answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.settimeout(SECONDS)
        try:
            one.connect(path)
            one.sendall(json.dumps(what).encode() + b"\n")
            data = b""
            while not data.endswith(b"\n"):
                piece = one.recv(1 << 16)
                if not piece:
                    return None
                data += piece
            answer: dict[str, Any] = json.loads(data)
        except (OSError, ValueError):
            return None
    return answer


def listen(path: str, mode: int, gid: int = -1) -> socket.socket:
    """A listening socket at `path`, which nobody could use before it has its mode. Errors: OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)
        try:
            one.bind(path)
        finally:
            os.umask(before)
        one.listen(socket.SOMAXCONN)
        one.setblocking(False)
        if gid >= 0:
            os.chown(path, -1, gid)
        os.chmod(path, mode)
    except OSError:
        one.close()
        raise
    return one


class Control:
    """Answers requests within the keeper's loop."""

    def __init__(self, loop: Loop, door: socket.socket, answer: Answer) -> None:
        self._loop, self._door, self._answer = loop, door, answer
        loop.watch(door.fileno(), READ, self._accept)

    def move(self, door: socket.socket) -> None:
        """Answer there from now on."""
        self._loop.forget(self._door.fileno())
        self._door.close()
        self._door = door
        self._loop.watch(door.fileno(), READ, self._accept)

    def _accept(self, _: int) -> None:
        try:
            one, _ = self._door.accept()
        except OSError:
            return
        one.setblocking(False)
        heard = bytearray()

        def readable(_: int) -> None:
            try:
                data = one.recv(LONGEST)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            heard.extend(data)
            if data and b"\n" not in heard and len(heard) < LONGEST:
                return
            self._loop.forget(one.fileno())
            with one, contextlib.suppress(OSError, ValueError):
                one.send(json.dumps(self._answer(json.loads(heard))).encode() + b"\n")

        self._loop.watch(one.fileno(), READ, readable)
