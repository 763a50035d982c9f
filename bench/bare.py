"""The bare work that Headway is measured against: no rows, no signatures, no sandbox, nothing survives a crash."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import subprocess
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

QUEUE = "bench-bare"
START_SECONDS = 30.0


def archive_and_swap(repository: Path, site: Path, release: int) -> float:
    """`git archive main | tar x` into a new folder, then `current` swapped to it. Seconds."""
    began = time.perf_counter()
    target = site / f"r{release}"
    target.mkdir(parents=True)
    with subprocess.Popen(["git", "-C", str(repository), "archive", "main"], stdout=subprocess.PIPE) as archive:
        subprocess.run(["tar", "-x", "-C", str(target)], stdin=archive.stdout, check=True)
    fresh = site / "current.new"
    fresh.symlink_to(target.name)
    os.replace(fresh, site / "current")
    return time.perf_counter() - began


@activity.defn(name="BareStep")
async def bare_step(number: int) -> int:
    return number


@workflow.defn(name="BareFive")
class BareFive:
    @workflow.run
    async def run(self) -> int:
        done = 0
        for number in range(5):
            done += await workflow.execute_activity(bare_step, number, start_to_close_timeout=timedelta(seconds=10))
        return done


@workflow.defn(name="BareOne")
class BareOne:
    @workflow.run
    async def run(self) -> int:
        return await workflow.execute_activity(bare_step, 1, start_to_close_timeout=timedelta(seconds=10))


async def one_activity(client: Client, times: int) -> list[float]:
    """Seconds from the call to the end of the one empty activity of a workflow: no switch by a workflow is sooner."""
    ends: list[float] = []

    @activity.defn(name="BareStep")
    async def step(number: int) -> int:
        ends.append(time.perf_counter())
        return number

    taken = []
    async with Worker(client, task_queue=QUEUE, workflows=[BareOne], activities=[step]):
        for number in range(times):
            began = time.perf_counter()
            await client.execute_workflow(BareOne.run, id=f"bare-one-{number}", task_queue=QUEUE)
            taken.append(ends[-1] - began)
    return taken


async def five_activities(client: Client, times: int) -> list[float]:
    """Seconds from the call to the result, one after the other, of a workflow of five empty activities."""
    taken = []
    async with Worker(client, task_queue=QUEUE, workflows=[BareFive], activities=[bare_step]):
        for number in range(times):
            began = time.perf_counter()
            await client.execute_workflow(BareFive.run, id=f"bare-five-{number}", task_queue=QUEUE)
            taken.append(time.perf_counter() - began)
    return taken


async def bare_starts(client: Client, total: int, callers: int, label: str) -> float:
    """Starts per second with `callers` at once, onto a queue that nobody polls: the server's own limit."""
    numbers = iter(range(total))

    async def call() -> None:
        for number in numbers:
            await client.start_workflow("BareNothing", id=f"bare-start-{label}-{number}", task_queue=f"{QUEUE}-idle")

    began = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(callers)))
    rate = total / (time.perf_counter() - began)
    await end_all(client, [f"bare-start-{label}-{number}" for number in range(total)])
    return rate


async def end_all(client: Client, ids: Sequence[str]) -> None:
    for run in ids:
        await client.get_workflow_handle(run).terminate("measured")


def service_starts(folder: Path, times: int) -> list[float]:
    """Seconds from the start of `app.py` in `folder`, as a plain process, to its first answer."""
    taken = []
    for _ in range(times):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        began = time.perf_counter()
        app = subprocess.Popen(["python3", "app.py"], cwd=folder, env={**os.environ, "PORT": str(port)})
        try:
            _first_answer(port, began + START_SECONDS)
            taken.append(time.perf_counter() - began)
        finally:
            app.kill()
            app.wait()
    return taken


def _first_answer(port: int, until: float) -> None:
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
            return
        except OSError:
            if time.perf_counter() > until:
                raise
            time.sleep(0.002)
        finally:
            connection.close()
