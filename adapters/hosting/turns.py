"""How much of a kind is done on a host at once, and who is next: a few environments, or teams, never hold all of it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from headway.errors import HeadwayError

AT_ONCE: Final = 16
WAITING: Final = 96
PATIENCE: Final = 900.0
LOOK: Final = 0.3


class Turns:
    """Thread-safe. Next is who has the fewest places; among these, whoever came first.

    Where too many wait, the last one of whoever has the most waiting makes way for one with fewer. `share` is the part
    of the places that one may have. `noun` and `code` are for errors.
    """

    def __init__(
        self,
        at_once: int = AT_ONCE,
        waiting: int = WAITING,
        patience: float = PATIENCE,
        *,
        share: float = 1.0,
        noun: str = "commands",
        code: str = "host.busy",
    ) -> None:
        self.at_once, self._most, self._patience = at_once, waiting, patience
        self._each = max(1, int(at_once * share))
        self._noun, self._code = noun, code
        self._changed = threading.Condition()
        self._running: Counter[str] = Counter()
        self._waiting: dict[object, str] = {}

    @contextlib.contextmanager
    def turn(self, whose: str, waits: Callable[[int], None], check: Callable[[], None]) -> Iterator[None]:
        """Hold one of the places. `waits` is told once, with how many are ahead, where none is free; `check` stops it.

        Raises `code` where too many wait already, or after `patience` seconds: nothing has been done then.
        """
        self._take(whose, waits, check)
        try:
            yield
        finally:
            self._give_back(whose)

    @contextlib.contextmanager
    def counted(self, whose: str) -> Iterator[None]:
        """What runs already, whoever began it: it needs no turn, and others wait for its place."""
        with self._changed:
            self._running[whose] += 1
        try:
            yield
        finally:
            self._give_back(whose)

    def _take(self, whose: str, waits: Callable[[int], None], check: Callable[[], None]) -> None:
        me, until, told = object(), time.monotonic() + self._patience, False
        with self._changed:
            begins = self._free() > 0 and self._running[whose] < self._each
            if not begins and len(self._waiting) >= self._most and not self._made_way(whose):
                running = self._running.total()
                raise self._busy(f"{running} {self._noun} run on this host, and {len(self._waiting)} wait.")
            self._waiting[me] = whose
        try:
            while not self._mine(me):
                if me not in self._waiting:
                    raise self._busy("Too many wait on this host, and of nobody else as many.")
                if time.monotonic() > until:
                    raise self._busy(f"It has waited for {self._patience:.0f} s: others run on this host.")
                if not told:
                    told = True
                    waits(len(self._waiting) - 1)
                check()
                with self._changed:
                    self._changed.wait(LOOK)
        finally:
            with self._changed:
                self._waiting.pop(me, None)
                self._changed.notify_all()

    def _mine(self, me: object) -> bool:
        """Whether it is this one's turn; the place is taken then."""
        with self._changed:
            if self._free() <= 0 or me is not self._next():
                return False
            self._running[self._waiting.pop(me)] += 1
            self._changed.notify_all()
            return True

    def _next(self) -> object | None:
        able = (one for one, whose in self._waiting.items() if self._running[whose] < self._each)
        return min(able, key=lambda one: self._running[self._waiting[one]], default=None)

    def _made_way(self, whose: str) -> bool:
        waiting = Counter(self._waiting.values())
        if not waiting:
            return False
        [(greediest, many)] = waiting.most_common(1)
        if many <= waiting[whose] + 1:
            return False
        del self._waiting[next(one for one, its in reversed(self._waiting.items()) if its == greediest)]
        self._changed.notify_all()
        return True

    def _free(self) -> int:
        return self.at_once - self._running.total()

    def _give_back(self, whose: str) -> None:
        with self._changed:
            self._running[whose] -= 1
            self._running += Counter()
            self._changed.notify_all()

    def _busy(self, why: str) -> HeadwayError:
        return HeadwayError(self._code, f"{why} Nothing was begun.")
