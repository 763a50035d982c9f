"""Polls: what is due is claimed here, and the run is started that looks. Role `control`."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from temporalio import activity
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from store import polling
from store.session import Store
from temporal import names
from temporal.failures import mapped
from temporal.messages import LookRef, Looks, PollOrder

log = logging.getLogger("headway.polling")


class Poller:
    """`every` is the installation's interval, `at_once` how many looks there are at a time."""

    def __init__(self, store: Store, client: Client, every: timedelta, at_once: int) -> None:
        self.store = store
        self.client = client
        self.every = every
        self.at_once = at_once

    @activity.defn(name="remote.claim")
    @mapped
    def claim_looks(self, order: PollOrder) -> Looks:
        looks = self.store.in_write(lambda session: polling.claim(session, self.every, limit=order.limit))
        return Looks(tuple(LookRef(look.site_id, look.attempt) for look in looks), self.at_once)

    async def watch(self, *, every: float = 2.0) -> None:
        """For ever: start the poll when a remote is due. While one runs there is no other."""
        while True:
            try:
                if await asyncio.to_thread(self._any_due):
                    await self._start()
            except Exception as error:
                log.warning("remotes are polled later: %s", type(error).__name__)
            await asyncio.sleep(every)

    def _any_due(self) -> bool:
        with self.store.read() as session:
            return polling.any_due(session, self.every)

    async def _start(self) -> None:
        # A claim is good for half an hour, and an unreachable remote takes fifteen seconds.
        await self.client.start_workflow(
            names.POLL,
            PollOrder(limit=20 * self.at_once),
            id=names.POLL_WORKFLOW,
            task_queue=names.CONTROL,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary="look at the branches of remotes",
            rpc_timeout=timedelta(seconds=2),
        )
