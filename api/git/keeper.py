"""Branches follow deploys: the one place where a branch of a hosted repository is moved.

Rows are the outbox. A pusher who waits has it done at once; what nobody waits for, and what an API that was killed
left behind, is done by this loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from adapters.githost.repositories import Repositories
from headway.errors import HeadwayError
from store import pushes
from store.models_pushes import Push
from store.session import Store

log = logging.getLogger("headway.git")


@dataclass
class BranchKeeper:
    store: Store
    repositories: Repositories
    every: float = 1.0
    tidy_every: float = 3600.0

    async def run(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._again, self.every, self.sweep)
            group.start_soon(self._again, self.tidy_every, self.repositories.tidy)

    async def _again(self, every: float, work: Callable[[], object]) -> None:
        while True:
            try:
                await anyio.to_thread.run_sync(work)
            except Exception as error:
                log.warning("the repositories are looked at later: %s", type(error).__name__)
            await asyncio.sleep(every)

    def sweep(self) -> int:
        """How many pushes were settled."""
        with self.store.read() as session:
            waiting = [push.id for push in pushes.due(session)]
        settled = 0
        for push_id in waiting:
            try:
                settled += self.settle(push_id) is not None
            except (HeadwayError, OSError) as error:
                log.warning("the branch of %s is not moved yet: %s", push_id, error)
        return settled

    def settle(self, push_id: str) -> bool | None:
        """Move the push's branch if its job has succeeded; whether it was moved, None while the job runs.

        Idempotent. Raises repository.unreachable where git cannot move it: it is tried again.
        """
        with self.store.read() as session:
            site_id = session.get_one(Push, push_id).site_id
        with self.repositories.alone(site_id):
            with self.store.read() as session:
                push = session.get_one(Push, push_id)
                if push.settled_at is not None:
                    return push.moved
                moves = pushes.verdict(session, push)
            if moves is None:
                return None
            if moves:
                self.repositories.move(site_id, push.branch, push.new_sha)
            self.store.in_write(lambda session: pushes.settle(session, push_id, moves))
        return moves
