"""What a workflow records of a failure."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.exceptions import CancelledError

from temporal.failures import describe_failure


@pytest.mark.parametrize("error", [CancelledError("stop"), asyncio.CancelledError()])
def test_every_kind_of_cancel_is_a_cancel(error: BaseException) -> None:
    """asyncio.gather raises asyncio's own when it is canceled, whatever its activities raised."""
    failure = describe_failure("dep_1", "place", error, on_timeout="roll.timeout")
    assert failure.canceled
    assert (failure.code, failure.stage) == ("job.canceled", "place")
