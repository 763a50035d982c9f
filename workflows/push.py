"""Push: build, then deploy, as one job. The parts are their own runs; the job's end is the rollout's."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError, ChildWorkflowError, FailureError, WorkflowAlreadyStartedError

with workflow.unsafe.imports_passed_through():
    from activities import references as act
    from temporal import names, policies
    from temporal.attributes import attributes
    from temporal.failures import describe_failure
    from temporal.messages import Ended, Enqueue, JobRef, PushOrder, RolloutRef, Signed, Standing

REREAD, LONGEST = timedelta(seconds=5), timedelta(minutes=1)


@workflow.defn(name=names.PUSH)
class Push:
    """Queue `control`, id: the job's."""

    @workflow.run
    async def run(self, ref: JobRef) -> Standing:
        order = await workflow.execute_local_activity(act.claim_push, ref, summary="claim the row", **policies.RECORD)
        try:
            signed = await self._build(order)
        except (FailureError, asyncio.CancelledError) as error:
            failure = describe_failure(order.rollout_id, "build", error, on_timeout="build.workers_unavailable")
            await workflow.execute_activity(act.fail_rollout, failure, summary=failure.code, **policies.RECORD)
            if failure.canceled:
                raise
            raise ApplicationError(failure.message, failure.details, type=failure.code, non_retryable=True) from error
        standing = await self._to_the_end(order, signed)
        if standing.status not in ("succeeded", "superseded", "canceled"):
            raise ApplicationError(f"The rollout {standing.status}.", type="job.failed", non_retryable=True)
        return standing

    async def _build(self, order: PushOrder) -> Signed:
        workflow.set_current_details(f"**build** · `{order.build_id}`")
        while True:
            with contextlib.suppress(WorkflowAlreadyStartedError):
                signed: Signed = await workflow.execute_child_workflow(
                    names.BUILD,
                    JobRef(order.job_id),
                    id=names.build_workflow(order.build_id),
                    # Whoever ends this run ends its build, gently: the builder kills what it started.
                    parent_close_policy=workflow.ParentClosePolicy.REQUEST_CANCEL,
                    search_attributes=attributes(order.labels),
                    static_summary=f"build for {order.labels.site} {order.labels.environment}",
                    result_type=Signed,
                )
                return signed
            # A run that was reset meets the build of its former self: once that has ended, its artifact is taken.
            await workflow.sleep(REREAD)

    async def _to_the_end(self, order: PushOrder, signed: Signed) -> Standing:
        """A cancel is passed on to the rollout; whether it came in time is the rollout's to say."""
        rolling = asyncio.create_task(self._roll(order, signed))
        try:
            return await asyncio.shield(rolling)
        except asyncio.CancelledError:
            await workflow.execute_activity(
                act.request_cancel, JobRef(order.job_id), summary="cancel the rollout", **policies.RECORD
            )
            return await rolling

    async def _roll(self, order: PushOrder, signed: Signed) -> Standing:
        await workflow.execute_local_activity(
            act.enqueue,
            Enqueue(order.rollout_id, signed.artifact_id),
            summary="join the queue",
            **policies.RECORD,
        )
        workflow.set_current_details(f"**roll** · `{order.rollout_id}` waits for its turn, or rolls")
        # How it ended is in the row, also where this run met an earlier one's, or lost it.
        with contextlib.suppress(WorkflowAlreadyStartedError, ChildWorkflowError):
            await self._run_roll(order)
        pause = timedelta(0)
        while True:
            standing: Standing = await workflow.execute_activity(
                act.standing, RolloutRef(order.rollout_id), summary="how it stands", **policies.RECORD
            )
            if standing.status not in ("queued", "running", "waiting", "held"):
                return standing
            # A place in a queue that waits for days must not outgrow a history.
            pause = min(2 * pause, LONGEST) if pause else REREAD
            await workflow.sleep(pause)

    async def _run_roll(self, order: PushOrder) -> None:
        await workflow.execute_child_workflow(
            names.ROLL,
            JobRef(order.job_id),
            id=names.roll_workflow(order.rollout_id),
            # The default would terminate a rollout in the middle of its switch.
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            search_attributes=attributes(order.labels),
            static_summary=f"deploy {order.labels.site} to {order.labels.environment}",
            result_type=Ended,
        )
