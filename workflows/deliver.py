"""Deliver: one event to one webhook, tried until it arrives or its tries are used up. The row says how it ended."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import references as act
    from temporal import names, policies
    from temporal.messages import DeliveryRef, Tried


@workflow.defn(name=names.DELIVER)
class Deliver:
    """Queue `control`, id `delivery/{id}`."""

    @workflow.run
    async def run(self, ref: DeliveryRef) -> Tried:
        while True:
            tried = await workflow.execute_activity(
                act.deliver,
                ref,
                task_queue=names.OUTSIDE,
                summary=f"send {ref.delivery_id}",
                **policies.SEND,
            )
            if tried.wait is None:
                return tried
            await workflow.sleep(timedelta(seconds=tried.wait), summary=f"after try {tried.number}")
