"""Several hosts: ready everywhere before the first one switches; a failure on one puts all back.

A host that takes up no work within the order's patience is away. The environment says what that means: the rollout
fails, or goes on without it, and it catches up by a rollout of its own once it is seen again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutError

with workflow.unsafe.imports_passed_through():
    from activities import references as act
    from temporal import names, policies
    from temporal.failures import was_canceled
    from temporal.messages import Ended, EnvironmentRef, Failure, Live, RollOrder, Settle, Switch

T = TypeVar("T")


def bounded(policy: policies.Policy, patience: int) -> policies.Policy:
    """The policy of one host of several: nobody waits for a host that is away."""
    return {**policy, "schedule_to_start_timeout": timedelta(seconds=patience)}


def is_away(error: BaseException) -> bool:
    """Whether no worker took the work up, or none that did came to an end, in all of the time that there was."""
    cause: BaseException | None = error
    while isinstance(cause, ActivityError):
        cause = cause.cause
    return isinstance(cause, TimeoutError) and not was_canceled(error)


def away(host: str, error: BaseException) -> ApplicationError:
    message = f"The host {host} does not answer: nothing of this rollout is served."
    made = ApplicationError(message, type="host.away", non_retryable=True)
    made.__cause__ = error
    return made


async def prepare(order: RollOrder) -> list[str]:
    """The hosts that are ready. The first that answers leads: what is done once is done there, and a release that does
    not start there troubles no other. Raises what any of them refuses, and host.away.
    """
    waiting, ready = list(order.hosts), list[str]()
    while waiting and not ready:
        host = waiting.pop(0)
        ready += await _ready(host, replace(order, leader=host))
    order = replace(order, leader=ready[0] if ready else "")
    for found in await together([_ready(host, order) for host in waiting]):
        ready += found
    if not ready:
        raise ApplicationError("None of the hosts answers.", type="host.away", non_retryable=True)
    return ready


async def _ready(host: str, order: RollOrder) -> list[str]:
    try:
        await workflow.execute_activity(
            act.prepare,
            order,
            task_queue=names.placing_queue(host, order.kind),
            summary=f"verify and place on {host}",
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            **bounded(policies.PLACE, order.patience),
        )
    except ActivityError as error:
        if not is_away(error):
            raise
        if order.away == "skip":
            return []
        raise away(host, error) from error
    return [host]


async def switch(order: RollOrder, hosts: Sequence[str], to: Callable[[str], Awaitable[Live]]) -> list[Live]:
    """What is live on each, `to` being the step on one of them. Raises PutBack where one fails: then none is."""
    done = await asyncio.gather(*map(to, hosts), return_exceptions=True)
    lives = [one for one in done if isinstance(one, Live)]
    errors = {host: one for host, one in zip(hosts, done, strict=True) if isinstance(one, BaseException)}
    if not errors or (lives and order.away == "skip" and all(is_away(one) for one in errors.values())):
        return lives
    undone = await put_back(order, hosts, lives)
    host, error = next(iter(errors.items()))
    several = len(order.hosts) > 1 and is_away(error)
    raise PutBack(away(host, error) if several else error, missing(hosts, undone)) from error


class PutBack(Exception):
    """Nothing of a rollout is live any more, but perhaps on `lost`, which could not be asked. `why` says why."""

    def __init__(self, why: BaseException, lost: tuple[str, ...]) -> None:
        super().__init__(str(why))
        self.why = why
        self.lost = lost


async def put_back(order: RollOrder, hosts: Iterable[str], lives: Iterable[Live]) -> list[Live]:
    """What was live before is again, on each host that answers; one of which that is not known finds it by itself."""
    before = {live.host_id: live.previous for live in lives}
    undoing = (_undo(host, order, before.get(host)) for host in hosts)
    done = await asyncio.gather(*undoing, return_exceptions=True)
    return [one for one in done if isinstance(one, Live)]


async def _undo(host: str, order: RollOrder, back_to: int | None) -> Live:
    return await workflow.execute_activity(
        act.undo,
        Switch(order.rollout_id, order.env_id, order.undo_seq, back_to=back_to),
        task_queue=names.host_queue(host),
        summary=f"put {host} back to {'what it was' if back_to is None else back_to}",
        **switching(order),
    )


def switching(order: RollOrder) -> policies.Policy:
    """One host is waited for, however long it is away; of several none is."""
    return policies.SWITCH if len(order.hosts) == 1 else bounded(policies.SWITCH_ONE, order.patience)


def missing(hosts: Iterable[str], lives: Iterable[Live]) -> tuple[str, ...]:
    """Who is not among those that answered."""
    return tuple(sorted(set(hosts) - {live.host_id for live in lives}))


async def settle(order: RollOrder, failure: Failure | None) -> Ended:
    """A run was lost: its release is live on every host that answers, or it is put back on each of them."""
    asked = await asyncio.gather(*(_live(host, order) for host in order.hosts), return_exceptions=True)
    lives = [one for one in asked if isinstance(one, Live)]
    if not lives:
        raise ApplicationError("None of the hosts answers.", type="host.away", non_retryable=True)
    reached = 0 if order.kind == "stop" else order.apply_seq
    lost = missing(order.hosts, lives)
    if any(live.seq != reached for live in lives) or (lost and order.away != "skip"):
        lives = await put_back(order, order.hosts, [])
    request = Settle(order.rollout_id, tuple(lives), failure, missing(order.hosts, lives))
    return await workflow.execute_activity(act.settle, request, summary="end by what is live", **policies.RECORD)


async def _live(host: str, order: RollOrder) -> Live:
    return await workflow.execute_activity(
        act.live,
        EnvironmentRef(order.env_id),
        task_queue=names.host_queue(host),
        summary=f"what does {host} serve?",
        **policies.ASK,
    )


async def route(env_id: str, hosts: Sequence[str], what: str, patience: int, away: str) -> tuple[str, ...]:
    """Each of the hosts asks for the environment's names and password, all at once; those that were left out.

    One that is away keeps no other waiting, and asks by itself once it is back; `away` says whether that fails the job.
    Raises what any of them refuses, and host.away.
    """
    if len(hosts) < 2 or not workflow.patched("names-on-all-hosts-at-once"):
        for host in hosts:
            await _route(env_id, host, what, policies.CALL)
        return ()
    policy = bounded(policies.CALL, patience)
    done = await asyncio.gather(*(_route(env_id, host, what, policy) for host in hosts), return_exceptions=True)
    errors = {host: one for host, one in zip(hosts, done, strict=True) if isinstance(one, BaseException)}
    for error in errors.values():
        if not is_away(error):
            raise error
    if errors and (away != "skip" or len(errors) == len(hosts)):
        silent = ", ".join(sorted(errors))
        message = f"No answer from {silent}: what has changed is asked for from there when it is back."
        raise ApplicationError(message, type="host.away", non_retryable=True) from next(iter(errors.values()))
    return tuple(sorted(errors))


async def _route(env_id: str, host: str, what: str, policy: policies.Policy) -> Live:
    return await workflow.execute_activity(
        act.route,
        EnvironmentRef(env_id),
        task_queue=names.host_queue(host),
        summary=f"{what} on {host}",
        **policy,
    )


async def together(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """What each gives. The first failure cancels the others and is raised when all have come to their end."""
    if not works:
        return []
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await workflow.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await workflow.wait(tasks)
        # Also where a cancel is raised: what nobody asks for is complained about when it is collected.
        found = (None if task.cancelled() else task.exception() for task in tasks)
        errors = [one for one in found if one is not None]
    for error in sorted(errors, key=was_canceled):
        raise error
    return [task.result() for task in tasks]
