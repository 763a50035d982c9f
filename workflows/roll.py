"""Roll: one artifact onto one environment. The old release serves until the switch, and again if the switch fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError

with workflow.unsafe.imports_passed_through():
    from activities import references as act
    from temporal import names, policies
    from temporal.failures import describe_failure
    from temporal.messages import Ended, Live, RollOrder, RolloutRef, Switch

TIMED_OUT = {"place": "roll.place_failed", "switch": "roll.timeout"}
# Verifying and placing are one activity on the host; the code tells which of the two refused.
VERIFYING = ("artifact.signature_invalid", "roll.verify_failed")


class Rollout:
    """The story that deploy, promote and rollback share: they differ in what was asked, not in what is done."""

    def __init__(self) -> None:
        self.stage = "place"

    async def carry_out(self, order: RollOrder) -> Ended:
        try:
            await self._place(order)
            ended = await _to_the_end(asyncio.create_task(self._go_live(order)))
        except (FailureError, asyncio.CancelledError) as error:
            timed_out = TIMED_OUT.get(self.stage, "internal.error")
            failure = describe_failure(order.rollout_id, self.stage, error, on_timeout=timed_out)
            if self.stage == "place" and failure.code in VERIFYING:
                failure = replace(failure, stage="verify")
            ended = await workflow.execute_activity(
                act.fail_rollout, failure, summary=f"{failure.code} in {failure.stage}", **policies.RECORD
            )
            await self._tell_the_job(order, ended)
            if failure.canceled:
                raise
            raise ApplicationError(failure.message, failure.details, type=failure.code, non_retryable=True) from error
        await self._tell_the_job(order, ended)
        return ended

    async def _place(self, order: RollOrder) -> None:
        self._tell("place", order)
        placing = [
            workflow.execute_activity(
                act.place,
                order,
                task_queue=names.host_queue(host),
                summary=f"verify and place on {host}",
                cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
                **policies.PLACE,
            )
            for host in order.hosts
        ]
        await asyncio.gather(*placing)

    async def _go_live(self, order: RollOrder) -> Ended:
        ref = RolloutRef(order.rollout_id)
        # The gate and the cancel flag are one transaction: from here on a cancel answers 409.
        await workflow.execute_local_activity(act.commit, ref, summary="point of no return", **policies.RECORD)
        self._tell("switch", order)
        await self._switch(order)
        self._tell("record", order)
        return await workflow.execute_local_activity(
            act.record_release, ref, summary="append release", **policies.RECORD
        )

    async def _switch(self, order: RollOrder) -> None:
        done: list[Live] = []
        try:
            for host in order.hosts:
                request = Switch(order.rollout_id, order.env_id, order.apply_seq)
                done.append(
                    await workflow.execute_activity(
                        act.switch,
                        request,
                        task_queue=names.host_queue(host),
                        summary=f"switch {host} to {order.apply_seq}",
                        **policies.SWITCH,
                    )
                )
        except ActivityError:
            for live in done:
                await self._undo(order, live)
            raise

    async def _undo(self, order: RollOrder, live: Live) -> None:
        request = Switch(order.rollout_id, order.env_id, order.undo_seq, back_to=live.previous)
        await workflow.execute_activity(
            act.undo,
            request,
            task_queue=names.host_queue(live.host_id),
            summary=f"put {live.host_id} back to {live.previous}",
            **policies.SWITCH,
        )

    async def _tell_the_job(self, order: RollOrder, ended: Ended) -> None:
        if not order.composite:
            return
        try:
            await workflow.get_external_workflow_handle(order.job_id).signal(names.ENDED, ended)
        except ApplicationError:
            workflow.logger.info("the job's run is closed: its row has the outcome")

    def _tell(self, stage: str, order: RollOrder) -> None:
        self.stage = stage
        workflow.set_current_details(f"**{stage}** · {order.kind} `{order.rollout_id}` as number {order.apply_seq}")


async def _to_the_end(task: asyncio.Task[Ended]) -> Ended:
    """Past the gate a cancel from the Temporal UI changes nothing: the switch is finished or undone first."""
    while True:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.done():
                raise


@workflow.defn(name=names.ROLL)
class Roll(Rollout):
    """Queue `control`; id: the job's, or `roll/{rollout_id}` inside a composite job; a child of its environment."""

    @workflow.run
    async def run(self, order: RollOrder) -> Ended:
        return await self.carry_out(order)
