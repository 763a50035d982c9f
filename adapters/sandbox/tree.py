"""The processes of one run, as a thing that can be killed whole and be waited for."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Protocol

MARKER = "HEADWAY_RUN"


class Tree(Protocol):
    def kill(self) -> None:
        """SIGKILL for everything; returns at once."""

    def gone(self, seconds: float) -> bool:
        """Wait until nothing is left; False if something was after that time."""

    def close(self) -> None:
        """Let go of descriptors."""


class NamespaceTree:
    """All of a pid namespace: when its first process ends, the kernel has ended and reaped all others before it."""

    def __init__(self, outer: subprocess.Popen[bytes], first: int) -> None:
        self._outer = outer
        self._first: int | None = None
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(first)
            # The number could be another process's by now; only bubblewrap's child is its child.
            if _parent(first) == outer.pid:
                self._first = handle
            else:
                os.close(handle)

    def kill(self) -> None:
        if self._first is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first, signal.SIGKILL)
        self._outer.kill()

    def gone(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        try:
            self._outer.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        if self._first is None:
            return True
        waiter = select.poll()
        waiter.register(self._first, select.POLLIN)
        return bool(waiter.poll(max(0.0, deadline - time.monotonic()) * 1000))

    def close(self) -> None:
        if self._first is not None:
            os.close(self._first)
            self._first = None


class MarkedTree:
    """Without namespaces: the session, and every process that inherited a mark in its environment."""

    def __init__(self, outer: subprocess.Popen[bytes], mark: str) -> None:
        self._outer = outer
        self._mark = f"{MARKER}={mark}".encode()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._outer.pid, signal.SIGKILL)
        for pid in self._members():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def gone(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._members():
            self.kill()
            self._outer.poll()
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        self._outer.wait()
        return True

    def close(self) -> None:
        pass

    def _members(self) -> list[int]:
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                with contextlib.suppress(OSError):
                    if self._mark in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                        found.append(int(name))
        return found


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return -1
