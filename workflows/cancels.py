"""What a cancel does not cut short, and where it counts after that."""

from __future__ import annotations

import asyncio
from typing import NoReturn, TypeVar

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import references as act
    from temporal import policies
    from temporal.failures import run_error
    from temporal.messages import Failure

T = TypeVar("T")


async def to_the_end(task: asyncio.Task[T]) -> T:
    """What it gives, whoever cancels the run meanwhile: a row, or a host, knows of it when it has begun."""
    while True:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.done():
                return task.result()


async def last_step(handle: workflow.ActivityHandle[T]) -> T:
    """What it gives, whoever cancels the run meanwhile: what it writes down is how the job ended."""
    while True:
        try:
            return await asyncio.shield(handle)
        except asyncio.CancelledError:
            if handle.done():
                return handle.result()
            # Runs of before asked for its end, and go on as they began to.
            if not workflow.patched("a-last-step-goes-to-its-end"):
                handle.cancel()
                return await handle


def stop_if_canceled() -> None:
    """Raises asyncio.CancelledError where the run was canceled while something went to its end."""
    # Runs of before go on as they began to. The question is asked of no other run: it is a step of its own.
    if workflow.cancellation_reason() is not None and workflow.patched("what-went-to-its-end-is-canceled"):
        raise asyncio.CancelledError


async def fail_job(failure: Failure, error: BaseException) -> NoReturn:
    """End the job's row with `failure`, whoever cancels the run meanwhile, and the run after it."""
    await to_the_end(workflow.start_activity(act.fail_job, failure, summary=failure.code, **policies.RECORD))
    raise run_error(failure) from error
