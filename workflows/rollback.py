"""Rollback: an earlier release's artifact, live again as a new release. It goes ahead of the queue."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from temporal import names
    from temporal.messages import Ended, JobRef
    from workflows.roll import Rollout


@workflow.defn(name=names.ROLLBACK)
class Rollback(Rollout):
    """History is appended to, never rewritten: going back is one more rollout with a higher number."""

    kind = "rollback"

    @workflow.run
    async def run(self, ref: JobRef) -> Ended:
        return await self.carry_out(ref)
