"""`headway down`: stop a stack in order, whoever supervises it, or nobody."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from headway.cli.up import DEFAULT_FOLDER
from headway.errors import HeadwayError
from headway.supervisor import identity, locks, processes, tenure
from headway.supervisor.apps import keeper_of, stop_apps
from headway.supervisor.becoming import User
from headway.supervisor.folder import Folder, read_record
from headway.supervisor.plan import Plan
from headway.supervisor.supervise import stop_in_order
from headway.supervisor.twin import end_stray

PATIENCE = 180.0
# A supervisor that has just begun, or is just gone, is given so many seconds to say so.
LOOK_AFTER = 1.0
# Seconds for a process whose record does not say how long it may take.
GRACE = 10.0


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), envvar="HEADWAY_DATA_DIR", default=DEFAULT_FOLDER)
def down(data_dir: Path) -> None:
    """Stop everything that runs on a data folder, in order. Its data stays; stopping twice is no error."""
    folder = Folder(data_dir.expanduser().absolute())
    if not folder.path("run").is_dir():
        raise HeadwayError(
            "stack.folder_invalid", f"{folder.root} is no data folder of Headway: name one with --data-dir."
        )
    began = time.monotonic()
    stopped = stop_stack(folder)
    if stopped:
        click.echo(f"Stopped in {time.monotonic() - began:.1f} s.")
    else:
        click.echo(f"Nothing runs on {folder.root}.")


def stop_stack(folder: Folder) -> bool:
    """Whether there was anything to stop. Raises `stack.start_failed` after PATIENCE seconds."""
    tenure.want(folder, tenure.DOWN)
    deadline = time.monotonic() + PATIENCE
    asked: set[object] = set()
    while time.monotonic() < deadline:
        lock = locks.try_lock(folder.lock(tenure.SUPERVISOR))
        if lock is not None:
            try:
                end_stray(folder)
                return _stop_leftovers(folder) or bool(asked)
            finally:
                os.close(lock)
        for record in _supervisors(folder, by_lock=deadline - time.monotonic() < PATIENCE - LOOK_AFTER):
            if record["pid"] not in asked:
                identity.send(record, signal.SIGTERM)
                asked.add(record["pid"])
        time.sleep(0.02)
    raise HeadwayError("stack.start_failed", f"The supervisor of {folder.root} did not stop within {PATIENCE:.0f} s.")


def _keeper(folder: Folder) -> User | None:
    with suppress(HeadwayError):
        return keeper_of(Plan.read(folder).components)
    return None


def _supervisors(folder: Folder, *, by_lock: bool) -> list[dict[str, Any]]:
    """By its record; where none names a living one (a damaged file, a full disk), whoever has its lock's file open."""
    if record := tenure.current(folder):
        return [record]
    if not by_lock:
        return []
    return [identity.describe(pid) for pid in locks.holders(folder.lock(tenure.SUPERVISOR))]


def _stop_leftovers(folder: Folder) -> bool:
    """With the supervisor's lock in hand: stop what a dead supervisor left running. The plan is not needed for it."""
    running = []
    for lock in sorted(folder.path("run").glob("*.lock")):
        name = lock.name.removesuffix(".lock")
        if name != tenure.SUPERVISOR and (process := processes.adopt(name, folder)) is not None:
            record = read_record(folder.record(name))
            running.append((process, int(record.get("tier", 0)), float(record.get("grace", GRACE))))
    stop_in_order(running, click.echo, lambda: False)
    stop_apps(folder, click.echo, _keeper(folder))
    folder.endpoints.unlink(missing_ok=True)
    return bool(running)
