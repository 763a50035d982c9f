"""Forgetting, once an hour: old jobs with their logs, idle sandboxes, and what was seen of environments now gone.

Every minute: ephemeral environments that nobody has used or renewed in time are deleted, by a job like any other, and
inputs of commands that nobody came back for are removed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import anyio
from sqlmodel import Session

from api.events import EventLog
from api.inputs import Inputs
from api.log_keeping import LogKeeping
from api.starting import Starts
from store.deliveries import forget_deliveries
from store.environments import accept_deletion, expired, gone
from store.forges import forget_calls
from store.labels import labels_of_job
from store.models import Job, utcnow
from store.pushes import forget_pushes
from store.reports import forget_reports
from store.retention import forget_drifts, forget_jobs
from store.sandboxes import expire, forget_files
from store.session import Store
from temporal.messages import Labels

BATCH = 100
ACTOR = {"type": "platform", "id": "expiry", "label": "idle expiry"}
log = logging.getLogger("headway.housekeeping")


class Seen(Protocol):
    """What is kept of environments in files."""

    def known(self) -> list[str]: ...

    def forget(self, env_id: str) -> None: ...


@dataclass
class Housekeeping:
    store: Store
    events: EventLog
    retention: timedelta
    seen: Sequence[Seen] = ()
    kept: LogKeeping | None = None
    starts: Starts | None = None
    every: float = 3600.0
    expire_every: float = 60.0
    inputs: Inputs | None = None

    async def run(self) -> None:
        forgotten = -self.every
        while True:
            try:
                if time.monotonic() - forgotten >= self.every:
                    await anyio.to_thread.run_sync(self.sweep)
                    await anyio.to_thread.run_sync(self.sweep_environments)
                    forgotten = time.monotonic()
                await self.end_idle()
                if self.inputs is not None:
                    await anyio.to_thread.run_sync(self.inputs.sweep)
            except Exception as error:
                log.warning("what is old is forgotten later: %s", type(error).__name__)
            await asyncio.sleep(min(self.every, self.expire_every))

    async def end_idle(self) -> int:
        """How many environments were told to end. Where Temporal is away the outbox starts it later."""
        ending = await anyio.to_thread.run_sync(self.store.in_write, self._idle)
        if self.starts is not None:
            for job, labels in ending:
                await self.starts.start(job.id, job.type, labels=labels)
        return len(ending)

    def _idle(self, session: Session) -> list[tuple[Job, Labels]]:
        jobs = [accept_deletion(session, site, environment, ACTOR) for site, environment in expired(session)]
        session.flush()
        return [(job, labels_of_job(session, job)) for job in jobs]

    def sweep(self) -> int:
        """How many jobs were forgotten. The row goes first: a log without a row is found by nobody."""
        while self.store.in_write(expire):
            pass
        while self.store.in_write(lambda session: forget_files(session, utcnow())):
            pass
        before, forgotten = utcnow() - self.retention, 0
        self.store.in_write(lambda session: forget_drifts(session, before))
        self.store.in_write(lambda session: forget_deliveries(session, before))
        self.store.in_write(lambda session: forget_reports(session, before))
        self.store.in_write(lambda session: forget_pushes(session, before))
        self.store.in_write(lambda session: forget_calls(session, before))
        while True:
            gone = self.store.in_write(lambda session: forget_jobs(session, before, limit=BATCH))
            if self.kept is not None:
                self.kept.forget(gone)
            for job_id in gone:
                self.events.forget(job_id)
            forgotten += len(gone)
            if len(gone) < BATCH:
                return forgotten

    def sweep_environments(self) -> None:
        """Forget what was seen of environments that are gone."""
        for one in self.seen:
            known = one.known()
            with self.store.read() as session:
                over = gone(session, known)
            for env_id in sorted(over):
                one.forget(env_id)
