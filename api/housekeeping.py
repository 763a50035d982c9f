"""Forgetting, once an hour: ended jobs past their retention, and their event logs with them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta

import anyio

from api.events import EventLog
from store.models import utcnow
from store.retention import forget_drifts, forget_jobs
from store.session import Store

BATCH = 100
log = logging.getLogger("headway.housekeeping")


@dataclass
class Housekeeping:
    store: Store
    events: EventLog
    retention: timedelta
    every: float = 3600.0

    async def run(self) -> None:
        while True:
            try:
                await anyio.to_thread.run_sync(self.sweep)
            except Exception as error:
                log.warning("old jobs are forgotten later: %s", type(error).__name__)
            await asyncio.sleep(self.every)

    def sweep(self) -> int:
        """How many jobs were forgotten. The row goes first: a log without a row is found by nobody."""
        before, forgotten = utcnow() - self.retention, 0
        self.store.in_write(lambda session: forget_drifts(session, before))
        while True:
            gone = self.store.in_write(lambda session: forget_jobs(session, before, limit=BATCH))
            for job_id in gone:
                self.events.forget(job_id)
            forgotten += len(gone)
            if len(gone) < BATCH:
                return forgotten
