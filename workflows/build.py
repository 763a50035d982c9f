"""Build: a git ref becomes a signed artifact. Nothing it does touches what is live."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from activities import references as act
    from temporal import names, policies
    from temporal.attributes import commit_attribute, digest_attribute
    from temporal.failures import describe_failure, run_error
    from temporal.messages import BuildOrder, BuildRef, Failure, JobRef, Signed
    from workflows.cancels import stop_if_canceled, to_the_end

FIRST_LOOK, LAST_LOOK = timedelta(seconds=1), timedelta(seconds=10)
TIMED_OUT = {"build": "build.workers_unavailable", "sign": "sign.failed"}


class Making:
    """The story that a build shares with a build-then-deploy. `order` is set once the row has been looked at."""

    def __init__(self) -> None:
        self.stage = "claim"
        self.order: BuildOrder | None = None

    async def make(self, ref: JobRef) -> Signed:
        """The build's artifact: the one that it has already, or a new one."""
        order = await self._claim(ref)
        if order.artifact_id:
            return Signed(order.build_id, order.artifact_id, order.digest)
        self.tell("build", order)
        output = await workflow.execute_activity(
            act.produce,
            order,
            task_queue=names.BUILDERS,
            summary=f"build {order.ref}",
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            **policies.BUILD,
        )
        stop_if_canceled()
        workflow.upsert_search_attributes(
            [commit_attribute(output.commit_sha), digest_attribute(output.manifest_sha256)]
        )
        if output.artifact_id:
            return Signed(order.build_id, output.artifact_id, output.manifest_sha256)
        self.tell("sign", order)
        return await workflow.execute_activity(
            act.sign,
            order,
            task_queue=names.SIGNING,
            summary=f"sign sha256:{output.manifest_sha256[:12]}",
            **policies.SIGN,
        )

    async def _claim(self, ref: JobRef) -> BuildOrder:
        """Wait for this build's turn among those of its site and team."""
        pause = FIRST_LOOK
        while True:
            order = self.order = await to_the_end(
                workflow.start_local_activity(act.claim_build, ref, summary="claim the row", **policies.RECORD)
            )
            stop_if_canceled()
            if not order.waiting:
                return order
            workflow.set_current_details(f"**waits** for earlier builds of its site or team · `{order.build_id}`")
            await workflow.sleep(pause)
            pause = min(2 * pause, LAST_LOOK)

    def failure(self, subject_id: str, error: BaseException) -> Failure:
        timed_out = TIMED_OUT.get(self.stage, "internal.error")
        return describe_failure(subject_id, self.stage, error, on_timeout=timed_out)

    def tell(self, stage: str, order: BuildOrder) -> None:
        self.stage = stage
        workflow.set_current_details(f"**{stage}** · build `{order.build_id}` of `{order.ref}`")


@workflow.defn(name=names.BUILD)
class Build:
    """Queue `control`; id: the job's."""

    def __init__(self) -> None:
        self.making = Making()

    @workflow.run
    async def run(self, ref: JobRef) -> Signed:
        try:
            return await self._to_the_end(ref)
        except (FailureError, asyncio.CancelledError) as error:
            if self.making.order is None:
                raise
            failure = self.making.failure(self.making.order.build_id, error)
            await to_the_end(
                workflow.start_activity(
                    act.fail_build, failure, summary=f"{failure.code} in {failure.stage}", **policies.RECORD
                )
            )
            raise run_error(failure) from error

    async def _to_the_end(self, ref: JobRef) -> Signed:
        signed = await self.making.make(ref)
        await workflow.execute_local_activity(
            act.succeed_build, BuildRef(signed.build_id), summary="end the build", **policies.RECORD
        )
        return signed
