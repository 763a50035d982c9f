"""What a builder has begun is its own; what comes to no end it lets go of, so that another need not wait."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from headway.errors import HeadwayError


class Broker(Protocol):
    def let_go(self, subject_id: str) -> None: ...


@contextmanager
def begun(broker: Broker, subject_id: str) -> Iterator[None]:
    """Around the begin and all that follows. A builder that was removed ends itself; what it has falls to others."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, HeadwayError) and error.code == "auth.invalid_key":
            os.kill(os.getpid(), signal.SIGTERM)
            message = "The builder that was at it may build no more; another takes over."
            raise HeadwayError("build.workers_unavailable", message) from error
        broker.let_go(subject_id)
        raise
