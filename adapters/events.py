"""A job's events on their way to the broker: batched, numbered, sent again until they are heard, never twice."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Literal, Protocol

from headway.broker import Event, Events, Heard, LastWords
from headway.errors import HeadwayError

INTERVAL: Final = 0.1
MOST: Final = 200
# Asking with nothing to say: this is how a silent build hears that somebody wants it to end.
POLL: Final = 0.8
CAPACITY: Final = 20_000
# How long a build may be slowed down in all for lines that it prints faster than the broker hears them.
SLOWED: Final = 10.0
MAX_BATCH: Final = 1_000
MAX_BATCH_CHARACTERS: Final = 512 << 10
_LONGEST_PAUSE: Final = 2.0

Stream = Literal["stdout", "stderr", "system"]


class Ear(Protocol):
    def append(self, job_id: str, events: Events, *, patience: float | None = None) -> Heard: ...


class EventBatcher:
    """One source of a job's events, with a thread of its own; use it as a context manager.

    A batch goes out 100 ms after its first line or with its 200th. `redact` sees every line first. While the broker is
    away up to 20,000 events wait here, and then the build waits too, for 10 s in all; after that lines are dropped, and
    how many is said once there is room. `source` has to be new for each attempt: `(source, number)` names an event for
    ever.
    """

    def __init__(self, ear: Ear, job_id: str, source: str, *, redact: Callable[[str], str] = lambda line: line) -> None:
        self._ear = ear
        self._job_id = job_id
        self._source = source
        self.redact = redact
        self._next = 1
        self._waiting: deque[Event] = deque()
        self._dropped = 0
        self._patience = SLOWED
        self._stage: str | None = None
        self._closing = False
        self._carried = False
        self._abandoned = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"events-{job_id}", daemon=True)
        self.canceled = False
        self.failure: HeadwayError | None = None

    def __enter__(self) -> EventBatcher:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def rest(self) -> LastWords | None:
        """What is left, for a message that takes it along: from now on nothing is added, and nothing else sends it.

        None where nothing is left, or where it could not be made little enough within some seconds.
        """
        self._carried = True
        self.close()
        with self._changed:
            batch = self._batch()
            if self._thread.is_alive() or not batch:
                return None
            events = Events.model_construct(source=self._source, first=self._next, events=batch)
            return LastWords.model_construct(job_id=self._job_id, events=events)

    def close(self, timeout: float = 5.0) -> None:
        """Send what is left, for at most `timeout` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        self._abandoned = True

    def stage(self, name: str) -> None:
        """A step began: the lines that follow are its lines."""
        self._stage = name
        self._add(Event.model_construct(kind="stage", ts=timestamp(), stage=name), wait=True)

    def progress(self, percent: int) -> None:
        self._add(Event.model_construct(kind="progress", ts=timestamp(), progress=percent), wait=True)

    def log(self, stream: Stream, line: str) -> None:
        """One line, without its end."""
        self._add(
            Event.model_construct(kind="log", ts=timestamp(), stage=self._stage, stream=stream, line=self.redact(line)),
            wait=False,
        )

    @property
    def flooded(self) -> bool:
        """Whether lines are being dropped: then `drop` is cheaper than `log`."""
        return self._dropped > 0 and self._patience <= 0 and len(self._waiting) > CAPACITY // 2

    def drop(self, lines: int) -> None:
        """Count lines that were not even looked at."""
        with self._changed:
            self._dropped += lines

    def _add(self, event: Event, *, wait: bool) -> None:
        with self._changed:
            if self.failure is not None or self._closing:
                return
            if not wait and not self._room():
                self._dropped += 1
                return
            if self._dropped and len(self._waiting) < CAPACITY:
                note = f"{self._dropped} lines were lost here: the log could not be delivered in time."
                self._waiting.append(Event.model_construct(kind="log", ts=timestamp(), stream="system", line=note))
                self._dropped = 0
            self._waiting.append(event)
            if len(self._waiting) in (1, MOST):
                self._changed.notify_all()

    def _room(self) -> bool:
        """Wait a little where there is none: waiting for long would keep a cancel and a timeout from being seen."""
        if len(self._waiting) >= CAPACITY and self._patience > 0:
            began = time.monotonic()
            self._changed.wait_for(lambda: len(self._waiting) < CAPACITY, min(0.5, self._patience))
            self._patience -= time.monotonic() - began
        return len(self._waiting) < CAPACITY

    def _run(self) -> None:
        pause = INTERVAL
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing, POLL)
                if self._waiting and not self._closing:
                    self._changed.wait_for(lambda: len(self._waiting) >= MOST or self._closing, INTERVAL)
                batch = self._batch()
                if self._closing and (not batch or (self._carried and len(batch) == len(self._waiting))):
                    return
            try:
                self._send(batch)
                pause = INTERVAL
            except HeadwayError as error:
                if not error.retryable or self._abandoned:
                    self._give_up(error)
                    return
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _batch(self) -> list[Event]:
        batch: list[Event] = []
        room = MAX_BATCH_CHARACTERS
        for event in self._waiting:
            room -= len(event.line or "")
            if len(batch) == MAX_BATCH or (batch and room < 0):
                break
            batch.append(event)
        return batch

    def _send(self, batch: list[Event]) -> None:
        events = Events.model_construct(source=self._source, first=self._next, events=batch)
        heard = self._ear.append(self._job_id, events, patience=0.0)
        if heard.cancel:
            self.canceled = True
        with self._changed:
            for _ in batch:
                self._waiting.popleft()
            self._next += len(batch)
            self._changed.notify_all()

    def _give_up(self, error: HeadwayError) -> None:
        with self._changed:
            self.failure = error
            self._waiting.clear()
            self._changed.notify_all()


def timestamp() -> str:
    """Now, as events carry it: RFC 3339, UTC, milliseconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
