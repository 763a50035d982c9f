"""While a builder works: the heartbeat, and every way in which it may be told to stop."""

from __future__ import annotations

import contextvars
import threading
from types import TracebackType
from typing import Final

from temporalio import activity

from adapters.events import EventBatcher
from headway.errors import HeadwayError

BEAT_SECONDS: Final = 0.5


class Watch:
    """Beats from a thread of its own while it is entered; `stopped()` may be asked from any thread, often.

    A user's cancel comes by the heartbeat or with the broker's answers. A worker that shuts down, and a run that has
    been given to somebody else, are not a user's cancel: they have errors of their own.
    """

    def __init__(self) -> None:
        self._events: EventBatcher | None = None
        self._done = threading.Event()
        self._context = contextvars.copy_context()
        self._thread = threading.Thread(target=self._context.run, args=(self._beat,), name="heartbeat", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    def listen(self, events: EventBatcher) -> None:
        """Hear the broker's answers too."""
        self._events = events

    def stopped(self) -> bool:
        heard = self._events is not None and (self._events.canceled or self._events.failure is not None)
        return heard or activity.is_cancelled()

    def check(self) -> None:
        """Raises what `reason()` says, if the work is to stop."""
        if self.stopped():
            raise self.reason()

    def reason(self) -> HeadwayError:
        """Why the work stops: job.canceled, attempt.stale, build.workers_unavailable, or the broker's refusal."""
        if self._events is not None and self._events.canceled:
            return HeadwayError("job.canceled", "The job was canceled on request; nothing of it went live.")
        if self._events is not None and self._events.failure is not None:
            return self._events.failure
        details = activity.cancellation_details()
        if details is None or details.cancel_requested:
            return HeadwayError("job.canceled", "The job was canceled on request; nothing of it went live.")
        if details.worker_shutdown:
            return HeadwayError("build.workers_unavailable", "This builder shuts down; another takes over.")
        return HeadwayError("attempt.stale", "This attempt is over: the run was ended, paused, or given to another.")

    def _beat(self) -> None:
        while not self._done.wait(BEAT_SECONDS):
            activity.heartbeat()
