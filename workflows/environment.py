"""Environment: the executor of one environment's queue. The queue is rows; the signal is only a doorbell."""

from __future__ import annotations

import contextlib
from typing import Any

from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, ChildWorkflowError, WorkflowAlreadyStartedError

with workflow.unsafe.imports_passed_through():
    from activities import references as act
    from temporal import names, policies
    from temporal.attributes import attributes
    from temporal.messages import EnvironmentRef, RollOrder, RolloutRef, Settle, Switch

STORIES = {"deploy": names.ROLL, "promote": names.PROMOTE, "rollback": names.ROLLBACK, "stop": names.STOP}


@workflow.defn(name=names.ENVIRONMENT)
class Environment:
    """Queue `control`, id `environment/{env_id}`. Ends when idle; may be terminated at any moment."""

    def __init__(self) -> None:
        self.rings = 0

    @workflow.signal(name=names.DOORBELL)
    def doorbell(self) -> None:
        self.rings += 1

    @workflow.run
    async def run(self, ref: EnvironmentRef) -> None:
        while True:
            heard = self.rings
            order = await workflow.execute_local_activity(
                act.claim_next, ref, summary="next of the queue", **policies.RECORD
            )
            if order is not None:
                await self._carry_out(ref, order, heard)
            elif heard == self.rings:
                return
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(ref)

    async def _carry_out(self, ref: EnvironmentRef, order: RollOrder, heard: int) -> None:
        workflow.set_current_details(f"{order.kind} `{order.rollout_id}`, job `{order.job_id}`")
        run = names.roll_workflow(order.rollout_id) if order.composite else order.job_id
        try:
            child = await workflow.start_child_workflow(
                STORIES[order.kind],
                order,
                id=run,
                # The default would terminate a rollout in the middle of its switch.
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                search_attributes=attributes(order.labels),
                static_summary=f"{order.kind} {order.labels.site} to {order.labels.environment}",
            )
        except WorkflowAlreadyStartedError:
            return await self._watch(ref, order, run)
        try:
            await self._wait(ref, child, heard)
        except ChildWorkflowError:
            await self._watch(ref, order, run)

    async def _wait(self, ref: EnvironmentRef, child: workflow.ChildWorkflowHandle[object, object], heard: int) -> None:
        """A ring since the claim may be a rollback: what has not switched makes way for it."""
        while True:
            await workflow.wait_condition(lambda heard=heard: child.done() or self.rings > heard)  # type: ignore[misc]
            if child.done():
                await child
                return
            heard = self.rings
            if await rollback_waits(ref):
                child.cancel()

    async def _watch(self, ref: EnvironmentRef, order: RollOrder, run: str) -> None:
        """Until the row has ended: a run that closed without an end (terminated, lost) is settled.

        A run that an executor before this one has started makes way for a rollback, too.
        """
        heard = -1
        while True:
            now = await workflow.execute_activity(
                act.standing, RolloutRef(order.rollout_id), summary="how it stands", **policies.RECORD
            )
            if now.status != "running":
                return
            if not now.open:
                return await settle(order)
            if workflow.info().is_continue_as_new_suggested():
                return  # what runs is not this run's child: the next run watches on
            if self.rings > heard:
                heard = self.rings
                if await rollback_waits(ref):
                    with contextlib.suppress(ApplicationError):  # it has closed meanwhile
                        await workflow.get_external_workflow_handle(run).cancel()
            await workflow.sleep(1)


async def rollback_waits(ref: EnvironmentRef) -> bool:
    """Whether the running rollout has to make way for a rollback that waits."""
    return (
        await workflow.execute_local_activity(act.preempt, ref, summary="rollback waiting?", **policies.RECORD)
        is not None
    )


async def settle(order: RollOrder, policy: dict[str, Any] = policies.SWITCH) -> None:
    """Ask every host what is live, behind a fence that no late worker passes; then end the row by that."""
    lives = []
    for host in order.hosts:
        live = await workflow.execute_activity(
            act.fence,
            Switch(order.rollout_id, order.env_id, order.undo_seq),
            task_queue=names.host_queue(host),
            summary=f"what does {host} serve?",
            **policy,
        )
        lives.append(live)
    request = Settle(order.rollout_id, tuple(lives))
    await workflow.execute_activity(act.settle, request, summary="end by what is live", **policies.RECORD)
