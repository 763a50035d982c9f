"""What Temporal starts by itself. Made anew by every control worker: a lost database of Temporal loses no schedule."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.service import RPCError

from temporal import names
from temporal.messages import JobRef

log = logging.getLogger("headway.schedules")
AGAIN = 600.0


async def keep_retention(client: Client, every: timedelta) -> None:
    """For ever: see to it that the schedule is there, with this interval."""
    await _keep("retention", lambda: ensure_retention(client, every))


async def keep_scrub(client: Client, every: timedelta) -> None:
    """The same for scrubs of the object store. An interval of nothing is never."""
    await _keep("scrubs", lambda: ensure_scrub(client, every))


async def _keep(what: str, ensure: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await ensure()
        except Exception as error:
            log.warning("the schedule of %s is looked at again: %s", what, type(error).__name__)
        await asyncio.sleep(AGAIN)


async def ensure_retention(client: Client, every: timedelta) -> None:
    start = ScheduleActionStartWorkflow(
        names.RETENTION,
        JobRef(""),
        id=names.RETENTION_WORKFLOW,
        task_queue=names.CONTROL,
        static_summary="mark and collect what nothing needs any more",
    )
    await _ensure(client, names.RETENTION_SCHEDULE, start, every)


async def ensure_scrub(client: Client, every: timedelta) -> None:
    start = ScheduleActionStartWorkflow(
        names.SCRUB,
        JobRef(""),
        id=names.SCRUB_WORKFLOW,
        task_queue=names.CONTROL,
        static_summary="read the next part of the object store, and mend what is damaged",
    )
    await _ensure(client, names.SCRUB_SCHEDULE, start, every)


async def _ensure(client: Client, name: str, start: ScheduleActionStartWorkflow, every: timedelta) -> None:
    """One run at a time; runs that were missed are not made up for."""
    if not every:
        with contextlib.suppress(RPCError):  # there is none
            await client.get_schedule_handle(name).delete()
        return
    schedule = Schedule(
        action=start,
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(minutes=10)),
    )
    try:
        await client.create_schedule(name, schedule)
    except ScheduleAlreadyRunningError:

        def update(known: ScheduleUpdateInput) -> ScheduleUpdate:
            # Whether an operator has paused it stays theirs to say.
            schedule.state = known.description.schedule.state
            return ScheduleUpdate(schedule=schedule)

        await client.get_schedule_handle(name).update(update)
