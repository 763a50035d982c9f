"""Poll: remotes that are due are looked at, a few at once. One that does not answer keeps nobody else waiting."""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities import references as act
    from temporal import names, policies
    from temporal.messages import LookRef, PollOrder


@workflow.defn(name=names.POLL)
class Poll:
    """Queue `control`, id `poll`: one at a time. The next one does what this one has not."""

    @workflow.run
    async def run(self, order: PollOrder) -> int:
        claimed = await workflow.execute_activity(
            act.claim_looks, order, summary="which remotes are due", **policies.RECORD
        )
        places = asyncio.Semaphore(claimed.at_once)
        seen = await asyncio.gather(*(self._look(ref, places) for ref in claimed.looks))
        return sum(seen)

    async def _look(self, ref: LookRef, places: asyncio.Semaphore) -> int:
        async with places:
            try:
                looked = await workflow.execute_activity(
                    act.look, ref, task_queue=names.BUILDERS, summary=f"look at {ref.site_id}", **policies.LOOK
                )
            except ActivityError:
                return 0  # the row counts it as failed: it is looked at again, later
        return looked.news
