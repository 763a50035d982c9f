"""Rows that are an outbox: a watch starts the runs of what nobody looks after."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property, partial
from typing import Any, Final, TypeVar

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from store.session import Store
from temporal import names
from temporal.attributes import attributes
from temporal.messages import Labels

T = TypeVar("T")
AT_ONCE: Final = 2
log = logging.getLogger("headway.outbox")


@dataclass(frozen=True)
class Due:
    """One row and its run. `signal` reaches a run that is under way; `labels` are for the Temporal UI."""

    id: str
    workflow: str
    workflow_id: str
    message: Any
    summary: str
    signal: str | None = None
    labels: Labels = field(default_factory=Labels)


class Outbox:
    """The watch; whose rows they are says the subclass."""

    store: Store
    client: Client

    @cached_property
    def _threads(self) -> Executor:
        return ThreadPoolExecutor(AT_ONCE, thread_name_prefix=type(self).__name__)

    async def rows(self, work: Callable[..., T], *args: Any) -> T:
        """Work with rows on threads of its own: a flood of these stands in nobody else's way."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args))

    @abstractmethod
    def take(self) -> Sequence[Due]:
        """What is due, taken for as long as a start may take."""

    @abstractmethod
    def put_back(self, id: str) -> None:
        """Its run could not be started."""

    async def watch(self, *, every: float = 0.5) -> None:
        """For ever: start the runs of rows that nobody looks after."""
        while True:
            try:
                while len(due := await asyncio.to_thread(self.take)) > 0:
                    await asyncio.gather(*map(self._start, due))
            except Exception as error:
                log.warning("%s is looked through again: %s", type(self).__name__, type(error).__name__)
                await asyncio.sleep(10 * every)
            await asyncio.sleep(every)

    async def _start(self, due: Due) -> None:
        try:
            await self.client.start_workflow(
                due.workflow,
                due.message,
                id=due.workflow_id,
                task_queue=names.CONTROL,
                start_signal=due.signal,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                search_attributes=attributes(due.labels),
                static_summary=due.summary,
                rpc_timeout=timedelta(seconds=2),
            )
        except WorkflowAlreadyStartedError:
            return
        except Exception:
            await asyncio.to_thread(self.put_back, due.id)
            raise
