"""Which process is meant: a pid alone may name a stranger, a pid with its start time and boot does not."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from headway.supervisor.folder import read_record, write_json


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """Clock ticks after boot at which the process began; None if it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def describe(pid: int) -> dict[str, Any]:
    """What a record holds about a living process: `{pid, start_time, boot_id}`."""
    return {"pid": pid, "start_time": start_time(pid), "boot_id": boot_id()}


def open_process(record: dict[str, Any]) -> int | None:
    """A pidfd of the very process that a record describes; None if it is gone."""
    pid, began = record.get("pid"), record.get("start_time")
    if not isinstance(pid, int) or began is None or record.get("boot_id") != boot_id() or start_time(pid) != began:
        return None
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    # The pid may have been taken over between the look and the open.
    if start_time(pid) != began:
        os.close(descriptor)
        return None
    return descriptor


def alive(record: dict[str, Any]) -> bool:
    descriptor = open_process(record)
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


def send(record: dict[str, Any], number: signal.Signals) -> bool:
    """Signal the very process that a record describes; False if it is gone."""
    descriptor = open_process(record)
    if descriptor is None:
        return False
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def register(path: Path, **facts: Any) -> None:
    """Write this process's own record, with more facts about it."""
    write_json(path, {**describe(os.getpid()), **facts})


def update(path: Path, **facts: Any) -> None:
    """Change facts in a record."""
    write_json(path, {**read_record(path), **facts})
