"""The beat of an activity that takes its time, so that the end of its process is noticed within seconds."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator

from temporalio import activity
from temporalio.exceptions import CancelledError

BEAT_SECONDS = 1.0


@contextlib.contextmanager
def beating(after_a_beat: Callable[[], None] = lambda: None) -> Iterator[Callable[[], None]]:
    """Beat from a thread of its own while the body works; gives the check that stops it on a cancel.

    What is called outside of an activity beats for nobody.
    """
    ended = threading.Event()

    def beat() -> None:
        told = False
        while activity.in_activity() and not ended.wait(BEAT_SECONDS):
            activity.heartbeat()
            if not told:
                told = True
                # Whom it tells may be away: the beat does not wait for that.
                threading.Thread(target=after_a_beat, name="tell", daemon=True).start()

    def check() -> None:
        if activity.is_cancelled():
            raise CancelledError("the rollout was canceled before anything of it was to be seen")

    # Its start counts as the first beat: most rollouts are over before the second.
    beating = threading.Thread(target=contextvars.copy_context().run, args=(beat,), name="beat", daemon=True)
    beating.start()
    try:
        yield check
    finally:
        ended.set()
        beating.join()
