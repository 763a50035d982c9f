"""What Temporal starts by itself. Made anew by every control worker: a lost database of Temporal loses no schedule."""

from __future__ import annotations

import asyncio
import logging
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

from temporal import names
from temporal.messages import JobRef

log = logging.getLogger("headway.schedules")
AGAIN = 600.0


async def keep_retention(client: Client, every: timedelta) -> None:
    """For ever: see to it that the schedule is there, with this interval."""
    while True:
        try:
            await ensure_retention(client, every)
        except Exception as error:
            log.warning("the schedule of retention is looked at again: %s", type(error).__name__)
        await asyncio.sleep(AGAIN)


async def ensure_retention(client: Client, every: timedelta) -> None:
    """One run at a time; runs that were missed are not made up for."""
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(
            names.RETENTION,
            JobRef(""),
            id=names.RETENTION_WORKFLOW,
            task_queue=names.CONTROL,
            static_summary="mark and collect what nothing needs any more",
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(minutes=10)),
    )
    try:
        await client.create_schedule(names.RETENTION_SCHEDULE, schedule)
    except ScheduleAlreadyRunningError:

        def update(known: ScheduleUpdateInput) -> ScheduleUpdate:
            # Whether an operator has paused it stays theirs to say.
            schedule.state = known.description.schedule.state
            return ScheduleUpdate(schedule=schedule)

        await client.get_schedule_handle(names.RETENTION_SCHEDULE).update(update)
