"""Calls of hooks that the hook's secret did not sign: counted by source and by hook, and answered ever more shortly.

A signature is looked at before anything is counted, so that whoever forges calls, from whatever address, never keeps a
genuine one from being heard.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

# Forged calls of one source in a minute that are told what is wrong with them.
TOLD: Final = 30
KEPT: Final = 10_000
# So many of a hook are written down at once, the others by the loop.
AT_ONCE: Final = 10


@dataclass
class Forgeries:
    """Thread-safe. `clock` gives seconds that only grow."""

    clock: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _sources: dict[str, tuple[float, float]] = field(default_factory=dict)
    _hooks: dict[str, int] = field(default_factory=dict)
    _written: dict[str, int] = field(default_factory=dict)

    def wait_for(self, source: str) -> int | None:
        """One more of this source; after how many seconds it will be answered again, None: now."""
        with self._lock:
            now = self.clock()
            tokens, at = self._sources.get(source, (float(TOLD), now))
            tokens = min(TOLD, tokens + (now - at) * TOLD / 60)
            if source not in self._sources and len(self._sources) >= KEPT:
                self._sources = {one: seen for one, seen in self._sources.items() if now - seen[1] < 60}
            if len(self._sources) < KEPT or source in self._sources:
                self._sources[source] = (max(tokens - 1, 0.0), now)
            return None if tokens >= 1 else max(1, math.ceil((1 - tokens) * 60 / TOLD))

    def note(self, hook_id: str) -> int:
        """One more of this hook; how many are to be written down now."""
        with self._lock:
            if len(self._hooks) < KEPT:
                self._hooks[hook_id] = self._hooks.get(hook_id, 0) + 1
            if self._written.get(hook_id, 0) >= AT_ONCE:
                return 0
            self._written[hook_id] = self._written.get(hook_id, 0) + 1
            return self._hooks.pop(hook_id, 0)

    def drain(self) -> dict[str, int]:
        """What is not written down yet, by hook."""
        with self._lock:
            found, self._hooks, self._written = self._hooks, {}, {}
            return found
