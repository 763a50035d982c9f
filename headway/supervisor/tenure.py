"""Who supervises a folder: one holder of `run/supervisor.lock` at a time, and how the post changes hands."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from typing import Any, Final

from headway.errors import HeadwayError
from headway.supervisor import identity, locks
from headway.supervisor.folder import Folder, read_record, write_json

SUPERVISOR: Final = "supervisor"
UP: Final = "up"
DOWN: Final = "down"
FOREGROUND: Final = "foreground"
DETACHED: Final = "detached"
# A standby that finds this many successions within the window waits: something kills every supervisor.
SUCCESSIONS: Final = 5
SUCCESSION_WINDOW: Final = 30.0


def want(folder: Folder, state: str) -> None:
    """What the operator wants; a standby takes over only where it is UP. DOWN needs no room on the disk."""
    path = folder.path("run", "wanted.json")
    try:
        write_json(path, {"state": state}, durable=True)
    except OSError:
        if state != DOWN:
            raise
        path.unlink(missing_ok=True)


def wanted(folder: Folder) -> str:
    return str(read_record(folder.path("run", "wanted.json")).get("state", DOWN))


def current(folder: Folder) -> dict[str, Any]:
    """The record of the living supervisor; empty if there is none."""
    record = read_record(folder.record(SUPERVISOR))
    return record if identity.alive(record) else {}


def take(folder: Folder, *, patience: float = 180.0) -> int:
    """The supervisor's lock for a new `up`: at once, or by asking a detached supervisor to retire.

    Components go on in between. Raises `stack.running` where somebody's terminal holds the stack, and
    `stack.start_failed` after `patience` seconds.
    """
    deadline = time.monotonic() + patience
    asked: dict[str, Any] = {}
    while time.monotonic() < deadline:
        lock = locks.try_lock(folder.lock(SUPERVISOR))
        if lock is not None:
            return lock
        record = current(folder)
        if record.get("mode") == FOREGROUND:
            raise taken(folder, record)
        if record.get("state") in ("healthy", "degraded") and record.get("pid") != asked.get("pid"):
            identity.send(record, signal.SIGUSR1)
            asked = record
        time.sleep(0.02)
    raise HeadwayError(
        "stack.start_failed", f"The supervisor of {folder.root} did not hand over within {patience:.0f} s."
    )


def taken(folder: Folder, record: dict[str, Any]) -> HeadwayError:
    """Why a second `up` must not begin."""
    return HeadwayError(
        "stack.running",
        f"A stack on {folder.root} is up already (process {record['pid']}): stop it with"
        f" `headway down --data-dir {folder.root}`, or choose another --data-dir.",
    )


def register(folder: Folder, mode: str, *, successions: list[float]) -> None:
    """Note that this process supervises now. On a full disk it does so without a note: `down` finds it by its lock."""
    with suppress(OSError):
        identity.register(
            folder.record(SUPERVISOR), mode=mode, state="starting", began=time.time(), successions=successions
        )


def succeed(folder: Folder) -> bool:
    """For a standby that has got the lock: take the post. Returns whether the predecessor had everything healthy.

    Raises SystemExit(0) where nobody wants the stack up any more.
    """
    if wanted(folder) != UP:
        raise SystemExit(0)
    before = read_record(folder.record(SUPERVISOR))
    now = time.time()
    recent = [at for at in before.get("successions", []) if isinstance(at, float) and now - at < SUCCESSION_WINDOW]
    if len(recent) >= SUCCESSIONS:
        time.sleep(5.0)
    register(folder, DETACHED, successions=[*recent, now])
    return before.get("state") == "healthy"
