"""Processes of runs whose builder was killed: found by a mark in the environment that they were started with.

The kernel kills a sandbox with its parent only once that has been asked for; a builder that dies while bubblewrap sets
up leaves an inner one behind that waits for ever. Whoever takes the slot next ends it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Final

# No setting, and never seen by what a sandbox runs.
VARIABLE: Final = "SANDBOX_SLOT"
SECONDS: Final = 5.0
PAUSE: Final = 0.005


def end(mark: str, uid: int | None) -> bool:
    """SIGKILL for whatever carries the mark, or runs under a uid of this slot alone; whether all of it is gone."""
    deadline = time.monotonic() + SECONDS
    while found := marked(mark, uid):
        if time.monotonic() > deadline:
            return False
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(PAUSE)
    return True


def marked(mark: str, uid: int | None = None) -> list[int]:
    """Live processes of the mark or the uid, never this one."""
    wanted = f"{VARIABLE}={mark}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                here = Path("/proc", name)
                if (uid is not None and here.stat().st_uid == uid) or wanted in _environment(here):
                    found.append(int(name))
    return found


def _environment(process: Path) -> list[bytes]:
    return (process / "environ").read_bytes().split(b"\0")
