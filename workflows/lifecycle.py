"""Lifecycle: restart, scale, suspend, resume and repair what runs on an environment. Rollouts, in its order."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from temporal import names
    from temporal.messages import Ended, JobRef
    from workflows.roll import Rollout


@workflow.defn(name=names.RESTART)
class Restart(Rollout):
    """The same artifact in new instances, with the newest configuration."""

    @workflow.run
    async def run(self, ref: JobRef) -> Ended:
        return await self.carry_out(ref)


@workflow.defn(name=names.SCALE)
class Scale(Rollout):
    """The same artifact and configuration in more or fewer instances; those that stay are not touched."""

    @workflow.run
    async def run(self, ref: JobRef) -> Ended:
        return await self.carry_out(ref)


@workflow.defn(name=names.SUSPEND)
class Suspend(Rollout):
    """A release that is nothing but a page: what it replaces is drained and stopped."""

    @workflow.run
    async def run(self, ref: JobRef) -> Ended:
        return await self.carry_out(ref)


@workflow.defn(name=names.RESUME)
class Resume(Rollout):
    """What ran before the suspension, healthy first."""

    @workflow.run
    async def run(self, ref: JobRef) -> Ended:
        return await self.carry_out(ref)


@workflow.defn(name=names.REPAIR)
class Repair(Rollout):
    """What a host cannot mend alone: contents are fetched again, then the same release is placed anew."""

    @workflow.run
    async def run(self, ref: JobRef) -> Ended:
        return await self.carry_out(ref)
