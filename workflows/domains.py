"""Attach and Detach: a name of the caller's own is proven by DNS and led to an environment, or is so no longer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import NoReturn

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

with workflow.unsafe.imports_passed_through():
    from activities import references as act
    from temporal import names, policies
    from temporal.failures import describe_failure, run_error
    from temporal.messages import Certified, DomainOrder, Ended, JobRef
    from workflows import fleet
    from workflows.cancels import last_step, stop_if_canceled, to_the_end

FIRST_WAIT = 5.0
LONGEST_WAIT = 300.0


@workflow.defn(name=names.ATTACH)
class Attach:
    """Queue `control`, id: the job's (`domain.attach`)."""

    @workflow.run
    async def run(self, ref: JobRef) -> Ended:
        order = await to_the_end(
            workflow.start_local_activity(act.claim_domain, ref, summary="claim the row", **policies.RECORD)
        )
        stage = "verify"
        try:
            stop_if_canceled()
            points_here = await _proven(order)
            stage = "route"
            order = await _route(order)
            certified = await _certify(order) if points_here else Certified(order.job_id, order.domain_id)
            certified = replace(certified, left_out=order.left_out)
            return await last_step(
                workflow.start_activity(
                    act.attach_domain, certified, summary=f"attach {order.hostname}", **policies.RECORD
                )
            )
        except (FailureError, asyncio.CancelledError) as error:
            await _fail(ref, stage, error)


@workflow.defn(name=names.DETACH)
class Detach:
    """Queue `control`, id: the job's (`domain.detach`)."""

    @workflow.run
    async def run(self, ref: JobRef) -> Ended:
        order = await to_the_end(
            workflow.start_local_activity(act.claim_domain, ref, summary="claim the row", **policies.RECORD)
        )
        try:
            stop_if_canceled()
            order = await _route(order)
            return await last_step(
                workflow.start_activity(act.detach_domain, order, summary=f"detach {order.hostname}", **policies.RECORD)
            )
        except (FailureError, asyncio.CancelledError) as error:
            await _fail(ref, "route", error)


async def _proven(order: DomainOrder) -> bool:
    """Look until the name is proven, or patience ends; whether it leads here already."""
    until = workflow.now() + timedelta(seconds=order.patience)
    wait = FIRST_WAIT
    while True:
        verified = await workflow.execute_activity(
            act.verify_domain,
            order,
            task_queue=names.OUTSIDE,
            summary=f"look for {order.hostname}",
            **policies.CALL,
        )
        if verified.proven:
            return verified.points_here
        left = (until - workflow.now()).total_seconds()
        if left <= 0:
            raise ApplicationError(verified.why, type="domain.not_verified", non_retryable=True)
        await workflow.sleep(timedelta(seconds=min(wait, left)), summary="until the next look")
        wait = min(wait * 1.5, LONGEST_WAIT)


async def _route(order: DomainOrder) -> DomainOrder:
    """What is left out of it is not asked for a certificate either."""
    left_out = await fleet.route(order.env_id, order.hosts, "set routes", order.host_patience, order.away)
    hosts = tuple(host for host in order.hosts if host not in left_out)
    return replace(order, hosts=hosts, left_out=left_out)


async def _certify(order: DomainOrder) -> Certified:
    """The web server is asked for a certificate now; one that is not to be had yet comes with the first visitor."""
    none = Certified(order.job_id, order.domain_id)
    if not order.hosts:
        return none
    try:
        return await workflow.execute_activity(
            act.certify,
            order,
            task_queue=names.host_queue(order.hosts[0], "asides"),
            summary=f"certificate of {order.hostname}",
            **policies.CERTIFY,
        )
    except FailureError:
        return none


async def _fail(ref: JobRef, stage: str, error: FailureError | asyncio.CancelledError) -> NoReturn:
    failure = describe_failure(ref.job_id, stage, error, on_timeout="roll.timeout")
    await to_the_end(workflow.start_activity(act.fail_domain, failure, summary=failure.code, **policies.RECORD))
    raise run_error(failure) from error
