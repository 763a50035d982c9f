"""Push: build, then deploy, as one job and one run. What was accepted later has its place in the order from then on."""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from activities import references as act
    from temporal import names, policies
    from temporal.failures import run_error
    from temporal.messages import Ended, JobRef, Signed
    from workflows.build import Making
    from workflows.cancels import to_the_end
    from workflows.roll import Rollout


@workflow.defn(name=names.PUSH)
class Push(Rollout):
    """Queue `control`, id: the job's."""

    def __init__(self) -> None:
        super().__init__()
        self.making = Making()

    @workflow.run
    async def run(self, ref: JobRef) -> Ended:
        signed = await self._make(ref)
        return await self.carry_out(ref, signed.artifact_id)

    async def _make(self, ref: JobRef) -> Signed:
        """A build that fails ends the rollout that waits for it, and the job."""
        try:
            return await self.making.make(ref)
        except (FailureError, asyncio.CancelledError) as error:
            if self.making.order is None:
                raise
            failure = self.making.failure(self.making.order.rollout_id, error)
            await to_the_end(
                workflow.start_activity(
                    act.fail_rollout, failure, summary=f"{failure.code} in {failure.stage}", **policies.RECORD
                )
            )
            raise run_error(failure) from error
