"""What the process that says a notice may do: connect to allowed addresses, read the code that it is made of.

An audit hook sees every connect, open and start of a program, whatever library does it, and cannot be taken away
again. It holds off a notice's address that leads elsewhere, not somebody who already runs code here.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable
from typing import Any, Final

from adapters.egress.policy import is_literal, is_public, normal

# Of the machine's own files only these are anybody's business here: names, roots of trust, kinds of files, time.
_READ: Final = (
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/ssl/",
    "/etc/pki/",
    "/usr/share/zoneinfo/",
    "/usr/share/ca-certificates/",
    "/dev/null",
    "/dev/urandom",
)
_NEVER: Final = (
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.kill",
    "os.link",
    "os.posix_spawn",
    "os.remove",
    "os.rename",
    "os.spawn",
    "os.symlink",
    "os.system",
    "os.truncate",
    "pty.spawn",
    "shutil.rmtree",
    "socket.sendmsg",
    "socket.sendto",
    "subprocess.Popen",
)
_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC


class NotAllowed(OSError):
    """What the address of a notice led to is nothing that it may lead to."""


class Guard:
    """`private_ok` are names and addresses that may be private. `refused` is set by the first that was held off."""

    def __init__(self, private_ok: Iterable[str], roots: Iterable[str], files: Iterable[str] = ()) -> None:
        """`roots` are folders of code, `files` are others, that may be read."""
        self._private_ok = frozenset(normal(name) for name in private_ok)
        self._allowed: set[str] = set()
        code = {sys.prefix, sys.base_prefix, *roots}
        self._roots = tuple(f"{os.path.realpath(root)}/" for root in code)
        self._files = frozenset(map(os.path.realpath, filter(None, files)))
        self._resolve = socket.getaddrinfo
        self.refused = ""

    def install(self) -> None:
        """From now on, for good."""
        socket.getaddrinfo = self._resolved
        sys.addaudithook(self._look)

    def _resolved(self, host: Any, *rest: Any, **more: Any) -> Any:
        """Those of a host's addresses that may be connected to."""
        name = normal(host.decode() if isinstance(host, bytes) else host or "")
        found = self._resolve(host, *rest, **more)
        private = name in self._private_ok
        kept = [one for one in found if private or is_public(str(one[4][0]))]
        self._allowed |= {str(one[4][0]) for one in kept}
        if not kept:
            raise self._held(f"{name} leads to no public address")
        return kept

    def _look(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.connect":
            self._look_at_address(args[1])
        elif event == "open":
            self._look_at_file(args[0], args[1], args[2])
        elif event in _NEVER:
            raise self._held(f"{event} is not allowed")

    def _look_at_address(self, address: Any) -> None:
        host = str(address[0]) if isinstance(address, tuple) and address else ""
        if host not in self._allowed and not (is_literal(host) and is_public(host)):
            raise self._held("it leads to no public address")

    def _look_at_file(self, path: Any, mode: Any, flags: Any) -> None:
        if isinstance(path, int):
            return
        real = os.path.realpath(os.fsdecode(path))
        writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (isinstance(flags, int) and flags & _WRITES)
        known = real in self._files or real.startswith((*self._roots, *_READ))
        if real != "/dev/null" and (writes or not known):
            raise self._held("a file is not allowed")

    def _held(self, why: str) -> NotAllowed:
        self.refused = self.refused or why
        return NotAllowed(why)
