"""Exec: a command in a sandbox, on a builder. Its output is in the row and the object store, never in here."""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from activities import references as act
    from temporal import names, policies
    from temporal.failures import describe_failure
    from temporal.messages import Ended, JobRef
    from workflows.cancels import fail_job, stop_if_canceled, to_the_end


@workflow.defn(name=names.EXEC)
class Exec:
    """Queue `control`, id: the job's (`sandbox.exec`)."""

    @workflow.run
    async def run(self, ref: JobRef) -> Ended:
        order = await to_the_end(
            workflow.start_local_activity(act.claim_exec, ref, summary="claim the row", **policies.RECORD)
        )
        try:
            stop_if_canceled()
            return await workflow.execute_activity(
                act.execute,
                order,
                task_queue=names.BUILDERS,
                summary=f"command in {order.sandbox_id}",
                cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
                **policies.EXEC,
            )
        except (FailureError, asyncio.CancelledError) as error:
            failure = describe_failure(ref.job_id, "exec", error, on_timeout="build.workers_unavailable")
            await fail_job(failure, error)
