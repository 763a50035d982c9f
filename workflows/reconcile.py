"""Reconcile: claimed rows whose runs are closed or unknown are ended by what is live. Runs only if there are any."""

from __future__ import annotations

import asyncio

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import references as act
    from temporal import names, policies
    from temporal.messages import Suspects
    from workflows.roll import settle


@workflow.defn(name=names.RECONCILE)
class Reconcile:
    """Queue `control`, id `reconcile`: one at a time."""

    @workflow.run
    async def run(self, suspects: Suspects) -> int:
        if suspects.jobs:
            await workflow.execute_activity(act.lose_jobs, suspects, summary="end as job.lost", **policies.RECORD)
        # A host that does not answer keeps nobody else waiting: its rollouts are suspects again at the next look.
        settling = (settle(order, policy=policies.ASK) for order in suspects.rollouts)
        ended = await asyncio.gather(*settling, return_exceptions=True)
        return len(suspects.jobs) + sum(not isinstance(one, BaseException) for one in ended)
