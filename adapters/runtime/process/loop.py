"""The keeper's event loop: descriptors and timers, nothing else. asyncio would double the keeper's memory."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import select
import time
from collections.abc import Callable

READ, WRITE, GONE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP
OnEvent = Callable[[int], None]


class Timer:
    __slots__ = ("canceled", "what")

    def __init__(self, what: Callable[[], None]) -> None:
        self.what, self.canceled = what, False

    def cancel(self) -> None:
        self.canceled = True


class Loop:
    """`what(events)` is called while a descriptor is ready; level-triggered.

    `since`: this thread's processor time when the call before ended. What was waited and looked for is the next one's.
    """

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._watched: dict[int, OnEvent] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._serial = itertools.count()
        self._stopped = False
        self.since = time.thread_time()

    def watch(self, number: int, events: int, what: OnEvent) -> None:
        if number in self._watched:
            self._poll.modify(number, events)
        else:
            self._poll.register(number, events)
        self._watched[number] = what

    def forget(self, number: int) -> None:
        """Before the descriptor is closed. Fine for one that is not watched."""
        if self._watched.pop(number, None) is not None:
            with contextlib.suppress(OSError):
                self._poll.unregister(number)

    def after(self, seconds: float, what: Callable[[], None]) -> Timer:
        timer = Timer(what)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._serial), timer))
        return timer

    def stop(self) -> None:
        self._stopped = True

    def run(self) -> None:
        """Until `stop`."""
        while not self._stopped:
            for number, events in self._poll.poll(self._pause()):
                # It may have been closed, and its number taken anew, by an earlier event of this round.
                if what := self._watched.get(number):
                    what(events)
                    self.since = time.thread_time()
            while self._timers and not self._stopped:
                due, _, timer = self._timers[0]
                if not timer.canceled and due > time.monotonic():
                    break
                heapq.heappop(self._timers)
                if not timer.canceled:
                    timer.what()
                    self.since = time.thread_time()

    def _pause(self) -> float:
        while self._timers and self._timers[0][2].canceled:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1
