"""What a host has begun before its activity has come: the activity joins it, and it is done once."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Final

from temporal.messages import Taken

MOST_KEPT: Final = 256
NOT_BEGUN: Final[Future[Taken]] = Future()
NOT_BEGUN.set_result(Taken())
log = logging.getLogger("headway.host")


class Early:
    """Thread-safe. `carry_out` does a job's rollout if it is to be had like that; what it raises counts as nothing."""

    def __init__(self, carry_out: Callable[[str], Taken]) -> None:
        self._carry_out = carry_out
        self._lock = threading.Lock()
        self._begun: OrderedDict[str, Future[Taken]] = OrderedDict()

    def begin(self, job_id: str) -> None:
        """Do it, in this thread. Once, and not where its activity has come: a second call changes nothing."""
        mine: Future[Taken] = Future()
        if self._note(job_id, mine) is not mine:
            return
        try:
            mine.set_result(self._carry_out(job_id))
        except Exception as error:
            log.info("%s is left to its run: %s", job_id, error)
            mine.set_result(Taken())

    def join(self, job_id: str, check: Callable[[], None]) -> Taken:
        """What became of it, once. Waits, with `check`, for what is under way; nothing where nothing was begun."""
        begun = self._note(job_id, NOT_BEGUN)
        while not begun.done():
            check()
            wait((begun,), timeout=0.5)
        with self._lock:
            if job_id in self._begun:
                self._begun[job_id] = NOT_BEGUN
        return begun.result()

    def _note(self, job_id: str, what: Future[Taken]) -> Future[Taken]:
        """What there is of a job: `what`, if there was nothing."""
        with self._lock:
            found = self._begun.setdefault(job_id, what)
            if len(self._begun) > MOST_KEPT:
                self._begun.popitem(last=False)
            return found
