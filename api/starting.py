"""Starting work after commit, and the outbox: what was accepted while Temporal was away starts when it is back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Protocol

import anyio

from store.idempotency import sweep_keys
from store.jobs import unstarted
from store.labels import labels_of_job
from store.models import Job, utcnow
from store.queue import ROLL_JOBS
from store.session import Store
from temporal.messages import Ahead, Labels

BATCH: Final = 50
AT_ONCE: Final = 8
MOST_BELLS: Final = 20
log = logging.getLogger("headway.outbox")


class Starts(Protocol):
    """The door to Temporal: bounded to about half a second, and silent about a server that is away."""

    async def start(self, job_id: str, job_type: str, *, labels: Labels, behind: bool = False) -> object: ...

    async def cancel(self, job_id: str) -> object: ...

    async def give_turn(self, ahead: Ahead) -> object: ...


async def ring(starts: Starts, bells: Sequence[Ahead]) -> None:
    """Tell runs that what held them may be gone. Those that are not told look by themselves within a minute."""
    for bell in bells[:MOST_BELLS]:
        await starts.give_turn(bell)


@dataclass
class Outbox:
    """Every two seconds: start again what is queued, unclaimed and older than a second; forget old idempotency keys.

    A batch goes on where the one before ended, so that rollouts which wait for their turn starve nobody; an
    environment's bell is rung once a batch.
    """

    store: Store
    starts: Starts
    every: float = 2.0
    _behind: str = ""
    _sweeps: int = field(default=0)

    async def run(self) -> None:
        while True:
            try:
                await self.sweep()
            except Exception as error:
                log.warning("the outbox will look again: %s", type(error).__name__)
            await asyncio.sleep(self.every)

    async def sweep(self) -> int:
        """How many starts were asked for."""
        due = await anyio.to_thread.run_sync(self._due)
        limiter = anyio.CapacityLimiter(AT_ONCE)

        async def start(job: Job, labels: Labels) -> None:
            async with limiter:
                await self.starts.start(job.id, job.type, labels=labels)

        async with anyio.create_task_group() as group:
            for job, labels in due:
                group.start_soon(start, job, labels)
        return len(due)

    def _due(self) -> list[tuple[Job, Labels]]:
        if self._sweeps % 300 == 0:
            self.store.in_write(sweep_keys)
        self._sweeps += 1
        with self.store.read() as session:
            jobs = unstarted(session, utcnow() - timedelta(seconds=1), self._behind, BATCH)
            self._behind = jobs[-1].id if len(jobs) == BATCH else ""
            rung: set[str] = set()
            due = []
            for job in jobs:
                if job.type in ROLL_JOBS:
                    if job.env_id in rung:
                        continue
                    rung.add(job.env_id or "")
                due.append((job, labels_of_job(session, job)))
            return due
