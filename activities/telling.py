"""What a host says of a rollout while it carries it out: stages and lines of the job's log, through the broker."""

from __future__ import annotations

import contextlib
import time
from typing import Final, Protocol

from adapters.events import timestamp
from headway.broker import Event, Events, Heard
from headway.errors import HeadwayError

EVERY: Final = 0.3
MAX_LINE: Final = 8_000
# Of a batch; and of what waits while the broker is away, the newest.
AT_ONCE, KEPT = 200, 5_000


class Broker(Protocol):
    def append(self, job_id: str, events: Events, *, patience: float | None = None) -> Heard: ...


class Teller:
    """Gathers events and sends them now and then; a broker that is away costs lines, never the rollout.

    `source` is new for each attempt, so that numbers never meet. `staged`: a stage was told.
    """

    def __init__(self, broker: Broker, job_id: str, source: str) -> None:
        self._broker = broker
        self._job_id = job_id
        self._source = source
        self._next = 1
        self._waiting: list[Event] = []
        self._sent = time.monotonic()
        self.staged = False

    def line(self, text: str) -> None:
        self._waiting.append(Event(kind="log", ts=timestamp(), stream="system", line=text[:MAX_LINE]))

    def stage(self, name: str) -> None:
        self.staged = True
        self._waiting.append(Event(kind="stage", ts=timestamp(), stage=name))

    def flush(self, *, now: bool = False) -> None:
        """Send what waits, if it is time."""
        if not self._waiting or (not now and time.monotonic() - self._sent < EVERY):
            return
        self._sent = time.monotonic()
        dropped = max(0, len(self._waiting) - KEPT)
        self._next += dropped
        del self._waiting[:dropped]
        with contextlib.suppress(HeadwayError):
            while self._waiting:
                batch = self._waiting[:AT_ONCE]
                self._broker.append(
                    self._job_id, Events(source=self._source, first=self._next, events=batch), patience=1.0
                )
                self._next += len(batch)
                del self._waiting[:AT_ONCE]
