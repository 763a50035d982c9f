"""Report: what a forge should show of one subject, tried until it does or the tries are used up. The row says so."""

from __future__ import annotations

import asyncio
import contextlib

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import references as act
    from temporal import names, policies
    from temporal.messages import Reported, ReportRef


@workflow.defn(name=names.REPORT)
class Report:
    """Queue `control`, id `report/{id}`: one run for each subject, so that states arrive in order."""

    def __init__(self) -> None:
        self._news = False

    @workflow.signal(name=names.NEWS)
    def news(self) -> None:
        self._news = True

    @workflow.run
    async def run(self, ref: ReportRef) -> Reported:
        while True:
            self._news = False
            reported = await workflow.execute_activity(
                act.report,
                ref,
                task_queue=names.OUTSIDE,
                summary=f"tell the forge {ref.report_id}",
                **policies.REPORT,
            )
            if reported.wait is None and not self._news:
                return reported
            with contextlib.suppress(asyncio.TimeoutError):
                await workflow.wait_condition(
                    lambda: self._news,
                    timeout=reported.wait or 0.0,
                    timeout_summary=f"after try {reported.number}",
                )
