"""Forgetting, once an hour: old jobs with their logs, idle sandboxes, and what was seen of environments now gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import anyio

from api.events import EventLog
from api.log_keeping import LogKeeping
from store.environments import gone
from store.models import utcnow
from store.retention import forget_drifts, forget_jobs
from store.sandboxes import expire, forget_files
from store.session import Store

BATCH = 100
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
    every: float = 3600.0

    async def run(self) -> None:
        while True:
            try:
                await anyio.to_thread.run_sync(self.sweep)
                await anyio.to_thread.run_sync(self.sweep_environments)
            except Exception as error:
                log.warning("what is old is forgotten later: %s", type(error).__name__)
            await asyncio.sleep(self.every)

    def sweep(self) -> int:
        """How many jobs were forgotten. The row goes first: a log without a row is found by nobody."""
        while self.store.in_write(expire):
            pass
        while self.store.in_write(lambda session: forget_files(session, utcnow())):
            pass
        before, forgotten = utcnow() - self.retention, 0
        self.store.in_write(lambda session: forget_drifts(session, before))
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
