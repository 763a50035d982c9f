"""Hands on a running stack's parts: processes that stop and go on, locks that are held, runs seen through Temporal."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

from temporalio.client import Client
from temporalio.service import RPCError

from bench.client import Caller, Site
from bench.stack import Stack
from headway.supervisor import processes
from headway.supervisor.folder import Folder, read_record
from headway.supervisor.plan import Plan
from tests.stack.sites import Place

T = TypeVar("T")
Json = dict[str, Any]
Until = Callable[[Callable[[], bool], str], None]


def pid_of(stack: Stack, name: str) -> int:
    return int(read_record(stack.data / "run" / f"{name}.json")["pid"])


def kill(stack: Stack, name: str) -> int:
    """kill -9 of one component's process; its supervisor has to notice by itself."""
    pid = pid_of(stack, name)
    os.kill(pid, signal.SIGKILL)
    return pid


def patiently(caller: Caller, job: dict) -> dict:
    """The job's end, through an API that may be away for a moment."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            job = caller.get(f"/v1/jobs/{job['id']}")
        except Exception:
            time.sleep(0.1)
            continue
        if job["status"] not in ("queued", "running"):
            return job
        time.sleep(0.1)
    raise AssertionError(f"{job['id']} never ended; last seen: {job}")


def ways(place: Place, artifacts: list[str], chance: random.Random) -> list[Callable[[], Json]]:
    """Everything that starts a job of a site."""
    production, staging = place.site.production, place.site.staging
    return [
        place.start_push,
        lambda: place.start_push(staging),
        lambda: place.start_build(env=production),
        lambda: place.start_roll(chance.choice(artifacts), production),
        lambda: place.start_roll(chance.choice(artifacts), staging),
        place.start_promotion,
        lambda: place.start_rollback(production),
    ]


def accepted(start: Callable[[], Json]) -> Json | None:
    """A job, unless the API was away: then nobody knows whether there is one, and rows are looked at in the end."""
    try:
        return start()
    except Exception:
        time.sleep(0.3)
        return None


def releases(caller: Caller, site: Site) -> list[dict]:
    return caller.get(f"/v1/sites/{site.id}/environments/{site.production}/releases?limit=100")


@contextlib.contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """SIGSTOP, and SIGCONT at the end."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def in_temporal(stack: Stack, work: Callable[[Client], Awaitable[T]]) -> T:
    """What an operator does in the Temporal UI."""

    async def run() -> T:
        return await work(await Client.connect(stack.temporal))

    return asyncio.run(run())


@contextlib.contextmanager
def second_worker(stack: Stack, role: str) -> Iterator[None]:
    """One more worker of a role, beside the supervised one and with the same settings."""
    folder = Folder(stack.data)
    component = next(one for one in Plan.read(folder).components if one.name == role)
    become = processes.becoming(component.user) if component.user is not None else ()
    with (stack.data / "logs" / f"{role}-second.log").open("ab") as log:
        process = subprocess.Popen(
            [*become, *component.argv],
            env=component.environment(folder),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def in_hand(stack: Stack, workflow_id: str, activity: str) -> str:
    """How the run's activity of this name stands: `scheduled` (no worker has it), `started`, or empty."""

    async def work(client: Client) -> str:
        try:
            found = await client.get_workflow_handle(workflow_id).describe()
        except RPCError:
            return ""
        states = {one.activity_type.name: one.state for one in found.raw_description.pending_activities}
        return {1: "scheduled", 2: "started"}.get(states.get(activity, 0), "")

    return in_temporal(stack, work)


@contextlib.contextmanager
def no_writing(stack: Stack) -> Iterator[None]:
    """One who writes into the database for longer than anybody should."""
    with contextlib.closing(sqlite3.connect(stack.data / "db" / "headway.db", isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")


@contextlib.contextmanager
def caught_in_the_switch(stack: Stack, place: Place, artifact_id: str, until: Until) -> Iterator[Json]:
    """A rollout that is past its gate: its host waits for the lock under which it compares and renames.

    Placing takes the same lock for a moment, so that it has to have ended before: the gate is a row, and no row can be
    written meanwhile.
    """
    env = stack.data / "host" / "env" / place.site.production
    placed = set(os.listdir(env / "r"))
    with (env / "lock").open("rb+") as lock, contextlib.ExitStack() as gate:
        with frozen(pid_of(stack, "host")):
            job = place.start_roll(artifact_id, place.site.production)
            until(lambda: bool(in_hand(stack, job["id"], "host.roll")), "the host is to place it")
            gate.enter_context(no_writing(stack))
        until(lambda: set(os.listdir(env / "r")) > placed, "it is placed")
        fcntl.flock(lock, fcntl.LOCK_EX)
        gate.close()
        until(lambda: place.caller.get(f"/v1/jobs/{job['id']}")["stage"] == "switch", "the gate is passed")
        yield job


def entered_releases(place: Place, env_id: str) -> list[Json]:
    """The releases once each has its place in the ledger, which is given a moment behind the switch."""
    deadline = time.monotonic() + 60
    while True:
        found = place.releases(env_id)
        if all(row["log_index"] is not None for row in found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
