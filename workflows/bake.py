"""Bake: every host watches the release that it has just switched to, for as long as the environment says."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities import references as act
    from temporal import names, policies
    from temporal.messages import Bake, Baked, Live, Measured, RollOrder


async def bake(order: RollOrder, lives: list[Live]) -> None:
    """Raises roll.bake_failed with what was measured, job.canceled where a rollback waits, and on a cancel."""
    await workflow.execute_activity(act.note_bake, Baked(order.rollout_id), summary="begin the bake", **policies.RECORD)
    measured = await asyncio.gather(*(_watch(order, live) for live in lives))
    await workflow.execute_activity(
        act.note_bake, Baked(order.rollout_id, tuple(measured)), summary="keep what was measured", **policies.RECORD
    )
    if bad := [one for one in measured if one.why]:
        message = f"It was watched for {order.bake_seconds} s and went back: " + "; ".join(one.why for one in bad)
        details = json.dumps({"bake": [asdict(one) for one in measured]})
        raise ApplicationError(message, details, type="roll.bake_failed", non_retryable=True)


async def _watch(order: RollOrder, live: Live) -> Measured:
    request = Bake(order.rollout_id, order.job_id, order.env_id, order.apply_seq, order.bake_seconds)
    return await workflow.execute_activity(
        act.bake,
        request,
        task_queue=names.host_queue(live.host_id),
        summary=f"watch {live.host_id} for {order.bake_seconds} s",
        cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
        **policies.BAKE,
    )
