"""Which process is meant: a pid alone may name a stranger, a pid with its start time and boot does not."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import Any


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def start_time(pid: int) -> int | None:
    """Clock ticks after boot at which the process began; None if it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def describe(pid: int) -> dict[str, Any]:
    return {"keeper": pid, "start_time": start_time(pid), "boot_id": boot_id()}


def kill(record: dict[str, Any], seconds: float) -> bool:
    """SIGKILL to the very keeper that a record describes, and wait; False if it lives on."""
    pid, began = record.get("keeper"), record.get("start_time")
    if not isinstance(pid, int) or began is None or record.get("boot_id") != boot_id():
        return True
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            if start_time(pid) == began:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                return ended(handle, seconds)
        finally:
            os.close(handle)
    return True


def kill_marked(name: str, value: str, seconds: float) -> bool:
    """SIGKILL to every process that was started with `name=value` in its environment; False if one lives on."""
    mark = f"{name}={value}".encode()
    others = (int(entry) for entry in os.listdir("/proc") if entry.isdigit() and int(entry) != os.getpid())
    handles = [handle for pid in others if (handle := _marked(pid, mark)) is not None]
    try:
        for handle in handles:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        return all(ended(handle, seconds) for handle in handles)
    finally:
        for handle in handles:
            os.close(handle)


def _marked(pid: int, mark: bytes) -> int | None:
    """A pidfd of the process if its environment has the mark; most are somebody else's, and do not let one look."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return None
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
        if mark in file.read().split(b"\0"):
            return handle
    os.close(handle)
    return None


def ended(handle: int, seconds: float) -> bool:
    """Wait for a process by its pidfd."""
    waiter = select.poll()
    waiter.register(handle, select.POLLIN)
    return bool(waiter.poll(seconds * 1000))
