"""Bake: every host watches the release that it has just switched to, for as long as the environment says."""

from __future__ import annotations

import json
from dataclasses import asdict

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities import references as act
    from temporal import names, policies
    from temporal.messages import Bake, Baked, Live, Measured, RollOrder
    from workflows import fleet


async def bake(order: RollOrder, lives: list[Live]) -> list[Live]:
    """What is live still: a host that goes away meanwhile is left out where the environment lets it.

    Raises roll.bake_failed with what was measured, host.away, job.canceled where a rollback waits, and on a cancel.
    """
    await workflow.execute_activity(act.note_bake, Baked(order.rollout_id), summary="begin the bake", **policies.RECORD)
    found = await fleet.together([_watch(order, live) for live in lives])
    measured = [one for one in found if one is not None]
    if not measured:
        raise ApplicationError("None of the hosts answers.", type="host.away", non_retryable=True)
    await workflow.execute_activity(
        act.note_bake, Baked(order.rollout_id, tuple(measured)), summary="keep what was measured", **policies.RECORD
    )
    if bad := [one for one in measured if one.why]:
        after = max(one.seconds for one in bad)
        message = f"It went back after {after:g} s of {order.bake_seconds}: " + "; ".join(one.why for one in bad)
        details = json.dumps({"bake": [asdict(one) for one in measured]})
        raise ApplicationError(message, details, type="roll.bake_failed", non_retryable=True)
    there = {one.host_id for one in measured}
    return [live for live in lives if live.host_id in there]


async def _watch(order: RollOrder, live: Live) -> Measured | None:
    request = Bake(order.rollout_id, order.job_id, order.env_id, order.apply_seq, order.bake_seconds, order.team)
    policy = policies.BAKE if len(order.hosts) == 1 else fleet.bounded(policies.BAKE, order.patience)
    try:
        return await workflow.execute_activity(
            act.bake,
            request,
            task_queue=names.host_queue(live.host_id, "bakes"),
            summary=f"watch {live.host_id} for {order.bake_seconds} s",
            cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
            **policy,
        )
    except ActivityError as error:
        if len(order.hosts) == 1 or not fleet.is_away(error):
            raise
        if order.away == "skip":
            return None
        raise fleet.away(live.host_id, error) from error
