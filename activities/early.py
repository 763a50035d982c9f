"""What a host has begun before its activity has come: the activity joins it, and it is done once."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Final

from temporal.messages import Taken

MOST_KEPT: Final = 64
log = logging.getLogger("headway.host")


class Early:
    """Thread-safe. `carry_out` does a job's rollout if it is to be had like that; what it raises counts as nothing."""

    def __init__(self, carry_out: Callable[[str], Taken]) -> None:
        self._carry_out = carry_out
        self._lock = threading.Lock()
        self._begun: OrderedDict[str, Future[Taken]] = OrderedDict()

    def begin(self, job_id: str) -> None:
        """Do it, in this thread. Once: a second call changes nothing."""
        mine: Future[Taken] = Future()
        with self._lock:
            if self._begun.setdefault(job_id, mine) is not mine:
                return
            if len(self._begun) > MOST_KEPT:
                self._begun.popitem(last=False)
        try:
            mine.set_result(self._carry_out(job_id))
        except Exception as error:
            log.info("%s is left to its run: %s", job_id, error)
            mine.set_result(Taken())

    def join(self, job_id: str, check: Callable[[], None]) -> Taken:
        """What became of it, once. Waits, with `check`, for what is under way; nothing where nothing was begun."""
        with self._lock:
            begun = self._begun.pop(job_id, None)
        if begun is None:
            return Taken()
        while not begun.done():
            check()
            wait((begun,), timeout=0.5)
        return begun.result()
