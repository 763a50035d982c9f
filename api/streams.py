"""Server-sent events of a job (contract section 8.3), independent of how a dialect shows a job."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final

import anyio
from starlette.responses import Response, StreamingResponse

from api.conversation import Conversation
from api.events import EventLog, Reader
from api.preferences import EVENTS
from api.watch import Subscription, Watch
from store.jobs import ROLL_STAGES
from store.models import Job
from store.session import Store

PING: Final = 15.0
RECHECK: Final = 15.0
Render = Callable[[Job], dict[str, Any]]


def as_events(call: Conversation, frames: AsyncGenerator[bytes, None]) -> Response:
    """The answer in which they are sent: nobody keeps it, and no proxy holds it back. It ends with the credential."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_while_let_in(call, frames), media_type=EVENTS, headers=headers)


async def _while_let_in(call: Conversation, frames: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Every stream has a frame at least each `PING`: so long a credential that is no good any more is listened with."""
    checked = time.monotonic()
    async with aclosing(frames):
        async for piece in frames:
            if time.monotonic() - checked >= RECHECK:
                if not await call.is_let_in_still():
                    return
                checked = time.monotonic()
            yield piece


def of_build(line: dict[str, Any]) -> bool:
    """Whether a line of a job's log is the build's, where a deployment follows in the same job."""
    return line["k"] == "log" and line["stage"] not in ROLL_STAGES


def frame(event: str, data: object, number: int | None = None) -> bytes:
    head = f"id: {number}\n" if number is not None else ""
    return f"{head}event: {event}\ndata: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


class JobStream:
    """First the job as it is; then, from behind `after` on, each line of its log and each change of its row; then end.

    A job that has ended already is one `job` frame and `end`; lines that a reconnecting reader missed come in between.
    """

    def __init__(
        self, store: Store, log: EventLog, watch: Watch, job: Job, render: Render, *, after: int | None
    ) -> None:
        self.store, self.log, self.watch, self.job, self.render = store, log, watch, job, render
        self.after = after
        self.sent = 0

    async def frames(self) -> AsyncGenerator[bytes, None]:
        job, self.sent = self.job, self.job.rev
        start = await anyio.to_thread.run_sync(self._begin)
        yield b"retry: 2000\n\n" + frame("job", self.render(job), start)
        reader = self.log.reader(job.id, after=start)
        if job.finished_at is not None and self.after is None:
            yield frame("end", {"status": job.status})
            return
        async with self.watch.on(job.id, job.rev) as subscription:
            async for piece in self._follow(reader, subscription):
                yield piece

    def _begin(self) -> int:
        """The number of the first frame: where the reader was, or 1, which stands for the job as it was accepted."""
        if self.log.lines(self.job.id) == 0 and self.job.finished_at is None:
            self.log.mark(self.job.id, self.job.rev)
        return 1 if self.after is None else max(1, min(self.after, self.log.lines(self.job.id)))

    async def _follow(self, reader: Reader, subscription: Subscription) -> AsyncGenerator[bytes, None]:
        pinged = time.monotonic()
        while True:
            job = await anyio.to_thread.run_sync(self._row)
            while lines := await anyio.to_thread.run_sync(reader.read):
                # Another reader may have marked a change that is newer than this row.
                if any(line.get("rev", 0) > job.rev for line in lines):
                    job = await anyio.to_thread.run_sync(self._row)
                yield self._frames_of(lines, job)
            if job.finished_at is not None:
                yield frame("end", {"status": job.status})
                return
            if self.watch.closing:
                return
            if not await subscription.wait(max(0.05, pinged + PING - time.monotonic())):
                pinged = time.monotonic()
                yield b": ping\n\n"

    def _row(self) -> Job:
        """The row as it is now, its revision marked in the log: what follows the mark was told after it."""
        with self.store.read() as session:
            job = session.get_one(Job, self.job.id)
        if job.rev > self.sent:
            self.log.mark(job.id, job.rev)
        return job

    def _frames_of(self, lines: list[dict[str, Any]], job: Job) -> bytes:
        pieces = []
        for line in lines:
            if line["k"] == "log":
                shown = {name: line[name] for name in ("ts", "stream", "stage", "line")}
                pieces.append(frame("log", shown, line["n"]))
            elif line["k"] == "job" and self.sent < line["rev"]:
                self.sent = max(job.rev, line["rev"])
                pieces.append(frame("job", self.render(job), line["n"]))
        return b"".join(pieces)
