"""Retire: an environment, or a site with all of its environments, leaves its hosts; the records stay."""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError

with workflow.unsafe.imports_passed_through():
    from activities import references as act
    from temporal import names, policies
    from temporal.failures import describe_failure
    from temporal.messages import Ended, EnvironmentRef, JobRef, PlaceOrder, RetireOrder
    from workflows import fleet
    from workflows.cancels import fail_job, last_step, stop_if_canceled, to_the_end


@workflow.defn(name=names.RETIRE)
class Retire:
    """Queue `control`, id: the job's (`environment.delete`, `site.delete`)."""

    @workflow.run
    async def run(self, ref: JobRef) -> Ended:
        order = await to_the_end(
            workflow.start_local_activity(act.claim_retire, ref, summary="claim", **policies.RECORD)
        )
        try:
            stop_if_canceled()
            return await self._retire(order)
        except (FailureError, asyncio.CancelledError) as error:
            failure = describe_failure(ref.job_id, "retire", error, on_timeout="roll.timeout")
            await fail_job(failure, error)

    async def _retire(self, order: RetireOrder) -> Ended:
        away = set[str]()
        for environment in order.environments:
            several = len(environment.hosts) > 1
            hosts = [host for host in environment.hosts if not several or host not in away]
            if len(hosts) < 2 or not workflow.patched("hosts-are-left-at-once"):
                for host in hosts:
                    await _leave(environment, host)
                continue
            left = await fleet.together([_leave(environment, host) for host in hosts])
            # It is not waited for again: once it is back it asks what has no business there, and lets it go.
            away |= {host for host, done in zip(hosts, left, strict=True) if not done}
        return await last_step(workflow.start_activity(act.retired, order, summary="end the rows", **policies.RECORD))


async def _leave(environment: PlaceOrder, host: str) -> bool:
    """Whether it did; one of several that is away lets it go by itself."""
    several = len(environment.hosts) > 1
    policy = fleet.bounded(policies.CALL, environment.patience) if several else policies.CALL
    try:
        await workflow.execute_activity(
            act.retire,
            EnvironmentRef(environment.env_id),
            task_queue=names.host_queue(host),
            summary=f"leave {host}",
            **policy,
        )
    except ActivityError as error:
        if not (several and fleet.is_away(error)):
            raise
        return False
    return True
