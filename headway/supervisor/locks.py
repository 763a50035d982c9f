"""Locks that outlive their maker: an flock belongs to the open file, and a component inherits it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def try_lock(path: Path) -> int | None:
    """An open, locked descriptor (close-on-exec), or None while somebody else holds the lock."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def holders(path: Path) -> list[int]:
    """The pids that have the file open: who may hold its lock when no record says so."""
    found, wanted = [], os.path.realpath(path)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if any(os.readlink(one) == wanted for one in (entry / "fd").iterdir()):
                found.append(int(entry.name))
        except OSError:
            continue
    return found
