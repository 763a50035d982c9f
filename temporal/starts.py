"""The API's only door to Temporal: start a job's work by name, after its row is committed; pass a cancel on.

A start is idempotent by its id and never raises for a server that is away: the row waits for the outbox sweeper.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Final

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from temporal import names
from temporal.attributes import attributes
from temporal.messages import EnvironmentRef, JobRef, Labels

WORKFLOWS: Final = {
    "build.run": names.BUILD,
    "deployment.push": names.PUSH,
    "site.create": names.PROVISION,
    "environment.create": names.PROVISION,
    "site.delete": names.RETIRE,
    "environment.delete": names.RETIRE,
    "sandbox.exec": names.EXEC,
}
BOUND: Final = 0.5
log = logging.getLogger("headway.starts")


class TemporalStarts:
    """Starts and cancels, bounded to half a second each."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def start(self, job_id: str, job_type: str, *, env_id: str | None, labels: Labels) -> bool:
        """Whether the run certainly exists. A roll's job is started by ringing its environment."""
        work = (
            self.ring(env_id, labels) if job_type not in WORKFLOWS and env_id else self._run(job_id, job_type, labels)
        )
        try:
            await asyncio.wait_for(work, BOUND)
        except WorkflowAlreadyStartedError:
            return True
        except (RPCError, RuntimeError, TimeoutError) as error:
            log.warning("start of %s is put off: %s", job_id, type(error).__name__)
            return False
        return True

    async def _run(self, job_id: str, job_type: str, labels: Labels) -> None:
        await self.client.start_workflow(
            WORKFLOWS[job_type],
            JobRef(job_id),
            id=job_id,
            task_queue=names.CONTROL,
            # A run that was ended from outside before it claimed the row must not keep the job queued for ever; one
            # that ends a row completes or is refused by the claim.
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            search_attributes=attributes(labels),
            static_summary=f"{job_type} {labels.site} {labels.environment}".strip(),
            static_details=f"job `{job_id}`",
            rpc_timeout=timedelta(seconds=BOUND),
        )

    async def ring(self, env_id: str, labels: Labels) -> None:
        """Signal with start: the environment's executor looks at its queue (DESIGN section 8)."""
        await self.client.start_workflow(
            names.ENVIRONMENT,
            EnvironmentRef(env_id),
            id=names.environment_workflow(env_id),
            task_queue=names.CONTROL,
            start_signal=names.DOORBELL,
            search_attributes=attributes(Labels(site=labels.site, environment=labels.environment)),
            static_summary=f"queue of {labels.site} {labels.environment}".strip(),
            rpc_timeout=timedelta(seconds=BOUND),
        )

    async def cancel(self, job_id: str) -> None:
        """Tell the run; the flag on the row decides, so a lost message only delays."""
        try:
            await asyncio.wait_for(self.client.get_workflow_handle(job_id).cancel(), BOUND)
        except (RPCError, RuntimeError, TimeoutError) as error:
            missing = isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND
            log.log(logging.DEBUG if missing else logging.WARNING, "cancel of %s: %s", job_id, type(error).__name__)
