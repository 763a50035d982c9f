"""Run: a one-off command with the release that an environment serves. Once: no other host begins it anew."""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError

with workflow.unsafe.imports_passed_through():
    from activities import references as act
    from temporal import names, policies
    from temporal.failures import describe_failure
    from temporal.messages import CommandEnded, CommandOrder, Ended, JobRef
    from workflows import fleet
    from workflows.cancels import fail_job, stop_if_canceled, to_the_end


@workflow.defn(name=names.RUN)
class Run:
    """Queue `control`, id: the job's (`environment.run`)."""

    @workflow.run
    async def run(self, ref: JobRef) -> Ended:
        order = await to_the_end(
            workflow.start_local_activity(act.claim_command, ref, summary="claim", **policies.RECORD)
        )
        try:
            stop_if_canceled()
            ended = await self._somewhere(order)
        except (FailureError, asyncio.CancelledError) as error:
            failure = describe_failure(ref.job_id, "run", error, on_timeout="host.away")
            await fail_job(failure, error)
        return await to_the_end(
            workflow.start_local_activity(
                act.end_command, ended, summary=f"exit code {ended.exit_code}", **policies.RECORD
            )
        )

    async def _somewhere(self, order: CommandOrder) -> CommandEnded:
        """On the first host that takes it up."""
        for host in order.hosts[:-1]:
            try:
                return await self._on(host, order)
            except ActivityError as error:
                if not fleet.is_away(error):
                    raise
        return await self._on(order.hosts[-1], order)

    async def _on(self, host: str, order: CommandOrder) -> CommandEnded:
        return await workflow.execute_activity(
            act.run_command,
            order,
            task_queue=names.host_queue(host, "commands"),
            summary=f"command on {host}",
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            **fleet.bounded(policies.COMMAND, order.patience if len(order.hosts) > 1 else 60),
        )
