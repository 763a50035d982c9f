"""The API's only door to Temporal: start a job's work by name, after its row is committed; pass a cancel on.

A start is idempotent by its id and never raises for a server that is away: the row waits for the outbox sweeper.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from datetime import timedelta
from typing import Final

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from temporal import names
from temporal.attributes import attributes
from temporal.messages import Ahead, JobRef, Labels

WORKFLOWS: Final = {
    "build.run": names.BUILD,
    "deployment.push": names.PUSH,
    "deployment.roll": names.ROLL,
    "deployment.promote": names.PROMOTE,
    "deployment.rollback": names.ROLLBACK,
    "deployment.stop": names.STOP,
    "site.create": names.PROVISION,
    "environment.create": names.PROVISION,
    "environment.protect": names.PROTECT,
    "site.delete": names.RETIRE,
    "environment.delete": names.RETIRE,
    "sandbox.exec": names.EXEC,
    "environment.run": names.RUN,
    "retention.run": names.RETENTION,
    "integrity.scrub": names.SCRUB,
    "environment.restart": names.RESTART,
    "environment.scale": names.SCALE,
    "environment.suspend": names.SUSPEND,
    "environment.resume": names.RESUME,
    "environment.repair": names.REPAIR,
    "domain.attach": names.ATTACH,
    "domain.detach": names.DETACH,
}
STORIES: Final = {
    "deploy": names.ROLL,
    "promote": names.PROMOTE,
    "rollback": names.ROLLBACK,
    "stop": names.STOP,
    "restart": names.RESTART,
    "scale": names.SCALE,
    "suspend": names.SUSPEND,
    "resume": names.RESUME,
    "repair": names.REPAIR,
}
BOUND: Final = 0.5
# A run that was seen to exist is believed in for so long: a backlog is not asked for again at every sweep. One that
# was ended from outside meanwhile is found missing after it.
BELIEVED_SECONDS: Final = 15.0
MOST_BELIEVED: Final = 10_000
log = logging.getLogger("headway.starts")


class TemporalStarts:
    """Starts and cancels, bounded to half a second each. `hold`: so long a run waits of what a host has ready."""

    def __init__(self, client: Client, hold: timedelta = timedelta()) -> None:
        self.client = client
        self._hold = hold
        self._seen: OrderedDict[str, float] = OrderedDict()

    async def start(self, job_id: str, job_type: str, *, labels: Labels, behind: bool = False) -> bool:
        """Whether the run exists, or did a moment ago. `behind`: its first step comes behind its host's own."""
        if time.monotonic() < self._seen.get(job_id, -math.inf) + BELIEVED_SECONDS:
            return True
        try:
            await asyncio.wait_for(self._run(job_id, job_type, labels, behind), BOUND)
        except WorkflowAlreadyStartedError:
            pass
        except (RPCError, RuntimeError, TimeoutError) as error:
            log.warning("start of %s is put off: %s", job_id, type(error).__name__)
            return False
        self._believe(job_id)
        return True

    def _believe(self, job_id: str) -> None:
        self._seen[job_id] = time.monotonic()
        self._seen.move_to_end(job_id)
        if len(self._seen) > MOST_BELIEVED:
            self._seen.popitem(last=False)

    async def _run(self, job_id: str, job_type: str, labels: Labels, behind: bool) -> None:
        await self.client.start_workflow(
            WORKFLOWS[job_type],
            JobRef(job_id, labels.host),
            id=job_id,
            task_queue=names.CONTROL,
            # A run that was ended from outside before it claimed the row must not keep the job queued for ever; one
            # that ends a row completes or is refused by the claim.
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            search_attributes=attributes(labels),
            static_summary=f"{job_type} {labels.site} {labels.environment}".strip(),
            static_details=f"job `{job_id}`",
            start_delay=self._hold if behind and self._hold else None,
            rpc_timeout=timedelta(seconds=BOUND),
        )

    async def give_turn(self, ahead: Ahead) -> None:
        """Tell the first of an environment's queue to look at the rows; start its run where that is missing."""
        labels = ahead.labels
        try:
            await asyncio.wait_for(
                self.client.start_workflow(
                    STORIES[ahead.kind],
                    JobRef(ahead.job_id),
                    id=ahead.job_id,
                    task_queue=names.CONTROL,
                    start_signal=names.TURN,
                    id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
                    search_attributes=attributes(labels),
                    static_summary=f"{ahead.kind} {labels.site} to {labels.environment}",
                    rpc_timeout=timedelta(seconds=BOUND),
                ),
                BOUND,
            )
        except WorkflowAlreadyStartedError:
            return  # it has ended: so has its row, or reconcile settles it
        except (RPCError, RuntimeError, TimeoutError) as error:
            log.warning("the turn of %s is told later: %s", ahead.job_id, type(error).__name__)

    async def cancel(self, job_id: str) -> None:
        """Tell the run; the flag on the row decides, so a lost message only delays."""
        try:
            await asyncio.wait_for(self.client.get_workflow_handle(job_id).cancel(), BOUND)
        except (RPCError, RuntimeError, TimeoutError) as error:
            missing = isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND
            log.log(logging.DEBUG if missing else logging.WARNING, "cancel of %s: %s", job_id, type(error).__name__)
