"""Stop: an environment serves nothing any more, in its turn and fenced like every rollout. Its releases stay."""

from __future__ import annotations

import asyncio

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import references as act
    from temporal import names
    from temporal.messages import Ended, JobRef, Live, RollOrder, Switch
    from workflows import fleet
    from workflows.cancels import to_the_end
    from workflows.roll import Rollout


@workflow.defn(name=names.STOP)
class Stop(Rollout):
    """Nothing is placed; the switch is to nothing. What runs again later is one more rollout."""

    @workflow.run
    async def run(self, ref: JobRef) -> Ended:
        return await self.carry_out(ref)

    async def _roll(self, order: RollOrder) -> Ended:
        lives = await to_the_end(asyncio.create_task(self._commit(order, order.hosts)))
        return await to_the_end(asyncio.create_task(self._finish(order, lives)))

    async def _switch_on(self, host: str, order: RollOrder) -> Live:
        return await workflow.execute_activity(
            act.undo,
            Switch(order.rollout_id, order.env_id, order.apply_seq, back_to=0),
            task_queue=names.host_queue(host),
            summary=f"switch {host} to nothing",
            **fleet.switching(order),
        )
