"""`headway down`: stop a stack in order, whoever supervises it, or nobody."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import click

from headway.cli.up import DEFAULT_FOLDER
from headway.errors import HeadwayError
from headway.supervisor import identity, locks, processes, tenure
from headway.supervisor.apps import stop_apps
from headway.supervisor.folder import Folder
from headway.supervisor.plan import Plan
from headway.supervisor.supervise import stop_in_order
from headway.supervisor.twin import end_stray

PATIENCE = 180.0


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
            end_stray(folder)
            return _stop_leftovers(folder) or bool(asked)
        record = tenure.current(folder)
        if record and record["pid"] not in asked:
            identity.send(record, signal.SIGTERM)
            asked.add(record["pid"])
        time.sleep(0.02)
    raise HeadwayError("stack.start_failed", f"The supervisor of {folder.root} did not stop within {PATIENCE:.0f} s.")


def _stop_leftovers(folder: Folder) -> bool:
    """With the supervisor's lock in hand: stop what a dead supervisor left running."""
    known = {one.name: (one.tier, one.grace) for one in Plan.read(folder).components} if folder.plan.exists() else {}
    running = []
    for lock in sorted(folder.path("run").glob("*.lock")):
        name = lock.name.removesuffix(".lock")
        if name != tenure.SUPERVISOR and (process := processes.adopt(name, folder)) is not None:
            running.append((process, *known.get(name, (0, 10.0))))
    stop_in_order(running, click.echo, lambda: False)
    stop_apps(folder, click.echo)
    folder.endpoints.unlink(missing_ok=True)
    return bool(running)
