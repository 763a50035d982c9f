"""What a builder has begun is its own; what comes to no end it lets go of, so that another need not wait."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from adapters.broker import BrokerClient
from headway.errors import HeadwayError


@contextmanager
def begun(broker: BrokerClient, subject_id: str) -> Iterator[None]:
    """A builder that was removed meanwhile is asked to end itself: what it has falls to the others."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, HeadwayError) and error.code == "auth.invalid_key":
            os.kill(os.getpid(), signal.SIGTERM)
            message = "The builder that was at it may build no more; another takes over."
            raise HeadwayError("build.workers_unavailable", message) from error
        broker.let_go(subject_id)
        raise
