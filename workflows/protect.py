"""Protect: every host asks an environment's visitors for its password, or does so no longer."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from activities import references as act
    from temporal import names, policies
    from temporal.failures import describe_failure
    from temporal.messages import Ended, JobRef, PlaceOrder
    from workflows import fleet
    from workflows.cancels import fail_job, last_step, stop_if_canceled, to_the_end


@workflow.defn(name=names.PROTECT)
class Protect:
    """Queue `control`, id: the job's (`environment.protect`)."""

    @workflow.run
    async def run(self, ref: JobRef) -> Ended:
        order = await to_the_end(
            workflow.start_local_activity(act.claim_provision, ref, summary="claim the row", **policies.RECORD)
        )
        try:
            stop_if_canceled()
            return await self._protect(order)
        except (FailureError, asyncio.CancelledError) as error:
            failure = describe_failure(ref.job_id, "protect", error, on_timeout="roll.timeout")
            await fail_job(failure, error)

    async def _protect(self, order: PlaceOrder) -> Ended:
        left_out = await fleet.route(order.env_id, order.hosts, "set the lock", order.patience, order.away)
        order = replace(order, left_out=left_out)
        return await last_step(workflow.start_activity(act.protected, order, summary="end the job", **policies.RECORD))
