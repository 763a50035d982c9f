"""Hands on a running stack's parts: processes that stop and go on, locks that are held, runs seen through Temporal."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from temporalio.client import Client

from bench.client import Caller, Site
from bench.stack import Stack
from headway.supervisor.folder import Folder, read_record
from headway.supervisor.plan import Plan

T = TypeVar("T")


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


@contextlib.contextmanager
def held(stack: Stack, env_id: str) -> Iterator[None]:
    """The lock under which a host compares and renames: a rollout gets into its switch and no further."""
    with (stack.data / "host" / "env" / env_id / "lock").open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
    with (stack.data / "logs" / f"{role}-second.log").open("ab") as log:
        process = subprocess.Popen(
            component.argv, env=component.environment(folder), cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)
