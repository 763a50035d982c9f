"""Scrub: read what the object store holds, and put right what is not what it should be, from whoever has it whole."""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError

with workflow.unsafe.imports_passed_through():
    from activities import references as act
    from temporal import names, policies
    from temporal.failures import describe_failure, was_canceled
    from temporal.messages import Damaged, Ended, JobRef, Mend, MendTried, Scrubbed, ScrubOrder, Settled
    from workflows.cancels import fail_job, stop_if_canceled, to_the_end

# So that a run's history stays small however much there is to read: the next run goes on from where this one was.
LOOKS = 500


@workflow.defn(name=names.SCRUB)
class Scrub:
    """Queue `control`, id: the job's, or the schedule's."""

    @workflow.run
    async def run(self, ref: JobRef) -> Ended:
        order = await to_the_end(
            workflow.start_local_activity(act.claim_scrub, ref, summary="claim", **policies.RECORD)
        )
        try:
            stop_if_canceled()
            told = await self._scrub(order)
            return await workflow.execute_activity(
                act.report_scrub, args=[order, told], summary=told.sentence(), **policies.RECORD
            )
        except (FailureError, asyncio.CancelledError) as error:
            if not order.job_id:
                raise
            failure = describe_failure(order.job_id, "scrub", error, on_timeout="service.unavailable")
            await fail_job(failure, error)

    async def _scrub(self, order: ScrubOrder) -> Scrubbed:
        told = Scrubbed()
        for _ in range(LOOKS):
            looked = await workflow.execute_activity(
                act.look_at_objects, order, summary="read and hash", **policies.SWEEP
            )
            told = told.plus(Scrubbed(looked.objects, looked.bytes, len(looked.damaged)))
            for damaged in looked.damaged:
                mended = await self._mend(damaged)
                told = told.plus(Scrubbed(mended=int(mended), lost=int(not mended)))
            workflow.set_current_details(told.sentence())
            if not looked.more:
                break
        return told

    async def _mend(self, damaged: Damaged) -> bool:
        """The first that has it whole mends it; who cannot changes nothing."""
        mend, tried = Mend(damaged.finding_id, damaged.object, damaged.name), list[MendTried]()
        for host in damaged.hosts:
            tried.append(await self._ask(host, mend))
            if not tried[-1].why:
                break
        if not damaged.hosts:
            remade = workflow.execute_activity(
                act.remake_object, mend, summary=f"make the {mend.object} anew", **policies.CALL
            )
            tried.append(await remade)
        settled = Settled(mend.finding_id, tuple(tried))
        ended = await workflow.execute_activity(act.settle_finding, settled, summary="read it again", **policies.SWEEP)
        return not ended.why

    async def _ask(self, host: str, mend: Mend) -> MendTried:
        try:
            return await workflow.execute_activity(
                act.mend_object,
                mend,
                task_queue=names.host_queue(host, "asides"),
                summary=f"mend a {mend.object} from {host}",
                **policies.LEND,
            )
        except ActivityError as error:
            if was_canceled(error):
                raise
            failure = describe_failure(mend.finding_id, "scrub", error, on_timeout="host.away")
            return MendTried(mend.finding_id, host, failure.message or failure.code)
