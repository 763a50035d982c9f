"""Between our typed errors and Temporal's failures: codes travel as failure types, messages without secrets.

An expected failure keeps its code and says whether a retry can help. An unexpected one is retried; only its class and
a short first line leave the process, because Temporal stores failures in clear.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from temporalio import activity
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    ChildWorkflowError,
    FailureError,
    RetryState,
    TerminatedError,
    TimeoutError,
    is_cancelled_exception,
)

from headway.errors import CODES, HeadwayError
from temporal.messages import Failure

F = TypeVar("F", bound=Callable[..., Any])
LIMIT = 2_000
log = logging.getLogger("headway.activities")


def as_application_error(error: HeadwayError) -> ApplicationError:
    """The code becomes the failure's type; `param` and details travel as one JSON text."""
    extra = {k: v for k, v in error.as_dict().items() if k not in ("code", "message")}
    return ApplicationError(
        error.message[:LIMIT], json.dumps(extra)[:LIMIT], type=error.code, non_retryable=not error.retryable
    )


def _unexpected(error: Exception) -> ApplicationError:
    log.exception("unexpected failure in an activity", exc_info=error)
    first = str(error).splitlines()[0][:200] if str(error) else ""
    return ApplicationError(f"{type(error).__name__}: {first}", type="internal.error")


def mapped(work: F) -> F:
    """Wrap an activity (sync or async): HeadwayError and bugs become failures that Temporal understands."""
    if inspect.iscoroutinefunction(work):

        @functools.wraps(work)
        async def run(*args: Any, **kwargs: Any) -> Any:
            try:
                return await work(*args, **kwargs)
            except HeadwayError as error:
                raise as_application_error(error) from error
            except (FailureError, KeyboardInterrupt):
                raise
            except Exception as error:
                raise _unexpected(error) from None

        return cast(F, run)

    @functools.wraps(work)
    def run_sync(*args: Any, **kwargs: Any) -> Any:
        try:
            return work(*args, **kwargs)
        except HeadwayError as error:
            raise as_application_error(error) from error
        except (FailureError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise _unexpected(error) from None

    return cast(F, run_sync)


@contextmanager
def bounded_tries(code: str, tries: int) -> Iterator[None]:
    """Inside an activity: a retryable error of that code is final once the activity has been tried so often."""
    try:
        yield
    except HeadwayError as error:
        if error.code != code or activity.info().attempt < tries:
            raise
        failure = as_application_error(error)
        raise ApplicationError(failure.message, *failure.details, type=code, non_retryable=True) from error


def was_canceled(error: BaseException) -> bool:
    """Whether a cancel ended it, or kept it from another try: of an activity that is to end Temporal makes none.

    Such an activity ends with what its last try met, which says nothing of what was to be done.
    """
    if is_cancelled_exception(error):
        return True
    if not isinstance(error, ActivityError) or error.retry_state is not RetryState.CANCEL_REQUESTED:
        return False
    return not (isinstance(error.cause, ApplicationError) and error.cause.non_retryable)


def run_error(failure: Failure) -> FailureError:
    """What a run ends with once its row has ended with `failure`: Temporal shows a cancel as one."""
    if failure.canceled:
        return CancelledError(failure.message)
    return ApplicationError(failure.message, failure.details, type=failure.code, non_retryable=True)


def describe_failure(subject_id: str, stage: str, error: BaseException, *, on_timeout: str) -> Failure:
    """What a workflow records of a failure: `on_timeout` is the code where no worker answered in time."""
    cause: BaseException | None = error
    while isinstance(cause, ActivityError | ChildWorkflowError) and cause.cause is not None:
        cause = cause.cause
    # A cancel that meets several activities at once comes as asyncio's own, without what each of them said.
    if isinstance(cause, CancelledError | asyncio.CancelledError) or was_canceled(error):
        return Failure(subject_id, stage, "job.canceled", "The job was canceled on request.", canceled=True)
    if isinstance(cause, TimeoutError):
        return Failure(subject_id, stage, on_timeout, f"No worker finished the stage {stage!r} in its time.")
    if isinstance(cause, TerminatedError):
        return Failure(subject_id, stage, "job.lost", "The run was terminated from outside.")
    if isinstance(cause, ApplicationError):
        code = cause.type if cause.type in CODES else "internal.error"
        details = cause.details[0] if cause.details and isinstance(cause.details[0], str) else ""
        return Failure(subject_id, stage, code, cause.message, canceled=code == "job.canceled", details=details)
    return Failure(subject_id, stage, "internal.error", f"{type(cause).__name__} in stage {stage!r}")


# Everything up to the switch is one activity on a host: its code tells how far that came.
_STAGES = {
    "artifact.signature_invalid": "verify",
    "policy.refused": "verify",
    "roll.verify_failed": "verify",
    "roll.start_failed": "start",
    "roll.release_command_failed": "start",
    "roll.health_failed": "health",
    "roll.stale": "switch",
    "roll.bake_failed": "bake",
}


def stage_of(failure: Failure) -> str:
    """The stage that a rollout's failure names."""
    return _STAGES.get(failure.code, failure.stage)


def error_dict(failure: Failure) -> dict[str, Any]:
    """The row's `error`: `{code, message, stage, …details}`."""
    extra: dict[str, Any] = {}
    if failure.details:
        try:
            extra = json.loads(failure.details)
        except ValueError:
            extra = {}
    return {**extra, "code": failure.code, "message": failure.message, "stage": failure.stage}
