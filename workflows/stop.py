"""Stop: an environment serves nothing any more, in its turn and fenced like every rollout. Its releases stay."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities import references as act
    from temporal import names, policies
    from temporal.messages import Ended, Live, RollOrder, Switch
    from workflows.roll import Rollout


@workflow.defn(name=names.STOP)
class Stop(Rollout):
    """Nothing is placed; the switch is to nothing. What runs again later is one more rollout."""

    @workflow.run
    async def run(self, order: RollOrder) -> Ended:
        return await self.carry_out(order)

    async def _place(self, order: RollOrder) -> None:
        self._tell("place", order)

    async def _switch(self, order: RollOrder) -> None:
        done: list[Live] = []
        try:
            for host in order.hosts:
                done.append(
                    await workflow.execute_activity(
                        act.undo,
                        Switch(order.rollout_id, order.env_id, order.apply_seq, back_to=0),
                        task_queue=names.host_queue(host),
                        summary=f"switch {host} to nothing",
                        **policies.SWITCH,
                    )
                )
        except ActivityError:
            for live in done:
                await self._undo(order, live)
            raise
