"""Following work: server-sent events resumed with `Last-Event-ID`, else long-polls by ETag (contract section 8.3)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from headway.errors import HeadwayError
from headway.resources import Job
from headway.transport import Transport, load_json

Json = dict[str, Any]
# Three missed pings: whatever is between us and the server has swallowed the connection.
SILENCE: Final = 45.0
PING: Final = 16.0
POLL: Final = 25
FRUITLESS: Final = 3
OUTAGE: Final = 60.0


class WaitTimeout(TimeoutError):
    """The wait has ended, the job has not."""

    def __init__(self, job_id: str, seconds: float) -> None:
        super().__init__(f"{job_id} has not ended within {seconds:g} s; it goes on.")
        self.job_id = job_id


@dataclass(frozen=True)
class JobEvent:
    """Either the job as it has become, or one line of its log: `{ts, stream, stage, line}`."""

    job: Job | None = None
    line: Json | None = None


@dataclass
class _Place:
    """Where a reader is in a stream: what a new connection resumes behind."""

    last_id: str | None = None
    ended: bool = False


class _Patience:
    """How long a server may be away before a wait gives up: it may be restarting, and the job goes on meanwhile."""

    def __init__(self) -> None:
        self._until = time.monotonic() + OUTAGE

    def bear(self, error: HeadwayError) -> None:
        """Raises `error` where waiting cannot help, or has been long enough."""
        if error.status < 500 or time.monotonic() >= self._until:
            raise error


class Follower:
    def __init__(self, transport: Transport) -> None:
        self._t = transport

    def events(self, job_id: str, *, timeout: float | None = None) -> Iterator[JobEvent]:
        until = None if timeout is None else time.monotonic() + timeout
        place, patience, fruitless = _Place(), _Patience(), 0
        while fruitless < FRUITLESS:
            before = place.last_id
            try:
                yield from self._connection(f"/v1/jobs/{job_id}/stream", place, until)
                fruitless += 1
            except HeadwayError as error:
                if error.code in ("route.not_found", "request.method_not_allowed"):
                    break
                if place.last_id == before:
                    patience.bear(error)
            if place.ended:
                return
            if until is not None and time.monotonic() >= until:
                raise WaitTimeout(job_id, timeout or 0.0)
            if place.last_id != before:
                patience, fruitless = _Patience(), 0
            else:
                time.sleep(0.5)
        yield from self._polled(job_id, until, timeout)

    def lines(self, path: str) -> Iterator[Json]:
        """The lines of a log that is streamed at `path`, until its end."""
        place, patience = _Place(), _Patience()
        while not place.ended:
            before = place.last_id
            try:
                for event in self._connection(path, place, None):
                    if event.line is not None:
                        yield event.line
            except HeadwayError as error:
                patience.bear(error)
            if place.last_id != before:
                patience = _Patience()
            elif not place.ended:
                time.sleep(0.5)

    def _connection(self, path: str, place: _Place, until: float | None) -> Iterator[JobEvent]:
        """Events of one connection, until it breaks, the work ends or the time is up."""
        silence = SILENCE if until is None else min(SILENCE, max(0.05, until - time.monotonic()))
        with self._t.events(path, last_event_id=place.last_id, timeout=silence) as events:
            for sent in events:
                if sent is not None:
                    place.last_id = sent.id or place.last_id
                    if sent.event == "end":
                        place.ended = True
                        return
                    if sent.event == "job":
                        yield JobEvent(job=Job.model_validate(load_json(sent.data)))
                    elif sent.event == "log":
                        yield JobEvent(line=load_json(sent.data))
                # Silence is measured anew from each event: near the deadline only a new connection keeps to it.
                left = SILENCE if until is None else until - time.monotonic()
                if left <= 0 or (left < PING and silence - left > 1.0):
                    return

    def _polled(self, job_id: str, until: float | None, timeout: float | None) -> Iterator[JobEvent]:
        etag: str | None = None
        patience = _Patience()
        while True:
            left = POLL if until is None else min(POLL, int(until - time.monotonic()) + 1)
            if left <= 0:
                raise WaitTimeout(job_id, timeout or 0.0)
            began = time.monotonic()
            headers = {} if etag is None else {"If-None-Match": etag, "Prefer": f"wait={left}"}
            try:
                answer = self._t.get(f"/v1/jobs/{job_id}", headers=headers)
            except HeadwayError as error:
                patience.bear(error)
                continue
            patience = _Patience()
            etag = answer.headers.get("etag", etag)
            if answer.status != 304:
                job = Job.model_validate(answer.data)
                yield JobEvent(job=job)
                if job.ended:
                    return
            if until is not None and time.monotonic() >= until:
                raise WaitTimeout(job_id, timeout or 0.0)
            if time.monotonic() - began < 0.2:
                time.sleep(0.5)
