"""Retention: mark what nothing needs, collect what was marked long ago and still is not needed, repack the rest.

The wait between mark and collection is in the rows, not in a timer: a run is short, and losing one loses nothing.
"""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from activities import references as act
    from temporal import names, policies
    from temporal.failures import describe_failure
    from temporal.messages import Ended, JobRef, Retained, RetentionOrder
    from workflows.cancels import fail_job, stop_if_canceled, to_the_end


@workflow.defn(name=names.RETENTION)
class Retention:
    """Queue `control`, id: the job's, or the schedule's."""

    @workflow.run
    async def run(self, ref: JobRef) -> Ended:
        order = await to_the_end(
            workflow.start_local_activity(act.claim_retention, ref, summary="claim", **policies.RECORD)
        )
        try:
            stop_if_canceled()
            told = await self._look(order) if order.dry_run else await self._collect(order)
            workflow.set_current_details(told.sentence())
            return await workflow.execute_activity(
                act.report_retention, args=[order, told], summary=told.sentence(), **policies.RECORD
            )
        except (FailureError, asyncio.CancelledError) as error:
            if not ref.job_id:
                raise
            failure = describe_failure(ref.job_id, "retention", error, on_timeout="service.unavailable")
            await fail_job(failure, error)

    async def _look(self, order: RetentionOrder) -> Retained:
        return await workflow.execute_activity(
            act.mark_unneeded, order, summary="look at what nothing needs", **policies.SWEEP
        )

    async def _collect(self, order: RetentionOrder) -> Retained:
        """Marked last, so that what this run marks is not looked at again by this run."""
        told = Retained()
        for step, summary in (
            (act.collect_marked, "look again, and collect"),
            (act.repack, "repack what is mostly dead"),
            (act.delete_doomed, "delete objects"),
            (act.mark_unneeded, "mark what nothing needs"),
        ):
            told = told.plus(await workflow.execute_activity(step, order, summary=summary, **policies.SWEEP))
        return told
