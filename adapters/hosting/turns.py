"""How many one-off commands run on a host at once, and who is next: a few environments never hold all of it."""

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
    """Thread-safe. Next is whose environment runs the fewest; among these, whoever came first.

    Where too many wait, the last one of the environment of which the most wait makes way for one with fewer.
    """

    def __init__(self, at_once: int = AT_ONCE, waiting: int = WAITING, patience: float = PATIENCE) -> None:
        self.at_once, self._most, self._patience = at_once, waiting, patience
        self._changed = threading.Condition()
        self._running: Counter[str] = Counter()
        self._waiting: dict[object, str] = {}

    @contextlib.contextmanager
    def turn(self, env_id: str, waits: Callable[[int], None], check: Callable[[], None]) -> Iterator[None]:
        """Hold one of the places. `waits` is told once, with how many are ahead, where none is free; `check` stops it.

        Raises host.busy where too many wait already, or after `patience` seconds: nothing has been done then.
        """
        self._take(env_id, waits, check)
        try:
            yield
        finally:
            self._give_back(env_id)

    @contextlib.contextmanager
    def counted(self, env_id: str) -> Iterator[None]:
        """What runs already, whoever began it: it needs no turn, and others wait for its place."""
        with self._changed:
            self._running[env_id] += 1
        try:
            yield
        finally:
            self._give_back(env_id)

    def _take(self, env_id: str, waits: Callable[[int], None], check: Callable[[], None]) -> None:
        me, until, told = object(), time.monotonic() + self._patience, False
        with self._changed:
            if self._free() <= 0 and len(self._waiting) >= self._most and not self._made_way(env_id):
                raise _busy(f"{self._running.total()} commands run on this host, and {len(self._waiting)} wait.")
            self._waiting[me] = env_id
        try:
            while not self._mine(me):
                if me not in self._waiting:
                    raise _busy("Too many wait on this host, and of no other environment as many.")
                if time.monotonic() > until:
                    raise _busy(f"It has waited for {self._patience:.0f} s: others run on this host.")
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

    def _next(self) -> object:
        return min(self._waiting, key=lambda one: self._running[self._waiting[one]], default=None)

    def _made_way(self, env_id: str) -> bool:
        waiting = Counter(self._waiting.values())
        if not waiting:
            return False
        [(whose, many)] = waiting.most_common(1)
        if many <= waiting[env_id] + 1:
            return False
        del self._waiting[next(one for one, its in reversed(self._waiting.items()) if its == whose)]
        self._changed.notify_all()
        return True

    def _free(self) -> int:
        return self.at_once - self._running.total()

    def _give_back(self, env_id: str) -> None:
        with self._changed:
            self._running[env_id] -= 1
            self._running += Counter()
            self._changed.notify_all()


def _busy(why: str) -> HeadwayError:
    return HeadwayError("host.busy", f"{why} The command was not begun.")
