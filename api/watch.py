"""One watcher for all that wait for jobs, or for lines of environments: it polls the revisions of watched jobs, and the
sizes of logs, whoever changed them: another replica may."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import anyio

from api.events import EventLog
from api.instance_logs import InstanceLogs
from store.jobs import revisions
from store.session import Store

log = logging.getLogger("headway.watch")


@dataclass(eq=False)
class Subscription:
    """`changed` is set with every new revision and every new line; `closing` when this process stops."""

    job_id: str
    rev: int = 0
    size: int = -1
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self, seconds: float) -> bool:
        """Whether something changed within that time."""
        try:
            await asyncio.wait_for(self.changed.wait(), seconds)
        except TimeoutError:
            return False
        self.changed.clear()
        return True


class Watch:
    """For one event loop."""

    def __init__(
        self,
        store: Store,
        events: EventLog | None = None,
        logs: InstanceLogs | None = None,
        *,
        every: float = 0.075,
    ) -> None:
        self.store = store
        self.events = events
        self.logs = logs
        self.every = every
        self.closing = False
        self._watched: dict[str, set[Subscription]] = {}
        self._wanted = asyncio.Event()

    @contextlib.asynccontextmanager
    async def on(self, job_id: str, rev: int) -> AsyncIterator[Subscription]:
        """Watch a job that is known at `rev`."""
        subscription = Subscription(job_id, rev)
        self._watched.setdefault(job_id, set()).add(subscription)
        self._wanted.set()
        try:
            yield subscription
        finally:
            others = self._watched[job_id]
            others.discard(subscription)
            if not others:
                del self._watched[job_id]

    def poke(self, job_id: str) -> None:
        """There are new lines."""
        for subscription in self._watched.get(job_id, ()):
            subscription.changed.set()

    def close(self) -> None:
        """Wake everybody for the last time."""
        self.closing = True
        for job_id in self._watched:
            self.poke(job_id)

    async def run(self) -> None:
        while True:
            if not self._watched:
                self._wanted.clear()
                await self._wanted.wait()
            try:
                await self.look()
            except Exception as error:
                log.warning("the watcher will look again: %s", type(error).__name__)
            await asyncio.sleep(self.every)

    async def look(self) -> None:
        watched = list(self._watched)
        for start in range(0, len(watched), 500):
            found = await anyio.to_thread.run_sync(self._states, watched[start : start + 500])
            for one, (rev, size) in found.items():
                for subscription in self._watched.get(one, ()):
                    if rev > subscription.rev or size != subscription.size:
                        subscription.rev, subscription.size = max(rev, subscription.rev), size
                        subscription.changed.set()

    def _states(self, watched: list[str]) -> dict[str, tuple[int, int]]:
        """Of each job its row's revision and its log's size; environments are watched for their lines alone."""
        job_ids = [one for one in watched if not one.startswith("env_")]
        if job_ids:
            with self.store.read() as session:
                found = revisions(session, job_ids)
        else:
            found = {}
        states = {job_id: (rev, self.events.size(job_id) if self.events else 0) for job_id, rev in found.items()}
        lines = {one: (0, self.logs.size(one)) for one in watched if one.startswith("env_")} if self.logs else {}
        return states | lines
