"""A few places that all share, of which nobody has more than half: what one caller is slow with holds no other up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio


class Rooms:
    """For one event loop. First come, first served, each among their own and then among all."""

    def __init__(self, places: int) -> None:
        self.all = anyio.CapacityLimiter(places)
        self._each = max(1, places // 2)
        self._own: dict[str, anyio.CapacityLimiter] = {}

    @asynccontextmanager
    async def place(self, whose: str) -> AsyncIterator[None]:
        """Hold one of the places; waits for it."""
        own = self._own.setdefault(whose, anyio.CapacityLimiter(self._each))
        try:
            async with own, self.all:
                yield
        finally:
            if not own.borrowed_tokens and not own.statistics().tasks_waiting:
                self._own.pop(whose, None)
