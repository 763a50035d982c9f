"""Promote: the artifact that runs on one environment, onto another, without a rebuild."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from temporal import names
    from temporal.messages import Ended, JobRef
    from workflows.roll import Rollout


@workflow.defn(name=names.PROMOTE)
class Promote(Rollout):
    """The same bytes: the order names an artifact that exists, and nothing here can build."""

    @workflow.run
    async def run(self, ref: JobRef) -> Ended:
        return await self.carry_out(ref)
