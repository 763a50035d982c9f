"""One request of this dialect: its caller, its parts, and the ways to answer it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

import anyio
from fastapi import Depends, Header, Query, Request
from pydantic import BaseModel
from sqlmodel import Session
from sqlmodel.sql.expression import SelectOfScalar
from starlette.responses import Response

from api.conversation import Conversation
from api.idempotency import Once, Replay
from api.paging import encode_cursor, page_from
from api.problems import JSON_TYPE, json_bytes
from api.rooms import Rooms
from headway.errors import HeadwayError
from store.idempotency import KEPT
from store.labels import labels_of_job
from store.models import Idempotency, Job, utcnow
from store.paging import Page, count_of, fetch_page, fetch_slice

T = TypeVar("T")
UNCERTAIN: Final = 5.0
SMALL_BODY: Final = 4 << 20
Json = dict[str, Any]


@dataclass(frozen=True)
class Paging:
    """Either `limit` and `cursor`, or `page` (from 1) and `page_size`."""

    limit: int
    cursor: str | None
    page: int | None

    @property
    def offset(self) -> int:
        return ((self.page or 1) - 1) * self.limit


class Call(Conversation):
    dialect = "miosa"

    @property
    def team_id(self) -> str:
        return self.caller.team_id

    def once(self, body: BaseModel | None) -> Once:
        """A key counts for its method and path (contract section 1.4), and apart from the other dialect's."""
        given = body.model_dump(mode="json", exclude_unset=True) if body is not None else {}
        request = self.request
        principal = f"miosa:{self.caller.principal}:{self.team_id}:{request.method} {request.url.path}"
        return Once.of(principal, self.idempotency_key, request.method, request.url.path, given)

    async def known(self, once: Once) -> Job | None:
        """The job of the first request with this key: a replay prepares nothing. Raises idempotency.key_reused."""
        if once.key is None:
            return None

        def work(session: Session) -> Job | None:
            row = session.get(Idempotency, (once.principal, once.key))
            if row is None or row.created_at <= utcnow() - KEPT or row.job_id is None:
                return None
            if row.fingerprint != once.fingerprint:
                raise HeadwayError("idempotency.key_reused", "This key was used for a different request.")
            return session.get(Job, row.job_id)

        return await self.read(work)

    async def create(
        self,
        body: BaseModel | None,
        work: Callable[[Session, Once], tuple[Json, Json]],
        *,
        beside: Sequence[str] = (),
        status: int = 201,
    ) -> Response:
        """Make a row. `work` returns what is answered, and what a replay may show of it. `beside` names fields that
        stand beside `data` too."""
        once = self.once(body)

        def make(session: Session) -> Json:
            shown, kept = work(session, once)
            once.keep(session, status, body=kept)
            return shown

        try:
            made = await self.write(make)
            return self.one(made, status, **{name: made[name] for name in beside})
        except Replay as replay:
            return self.one(replay.body, status, {"Idempotent-Replayed": "true"})

    async def accept(self, once: Once, work: Callable[[Session, Once], Sequence[Job]]) -> tuple[Job, bool]:
        """As `accept_any`, for work that always has a job."""
        job, running = await self.accept_any(once, work)
        assert job is not None  # noqa: S101
        return job, running

    async def accept_any(self, once: Once, work: Callable[[Session, Once], Sequence[Job]]) -> tuple[Job | None, bool]:
        """Rows of work in one transaction, then the starts. The last job is the one that counts; with whether it runs.

        A replayed key gives the first request's job. No job: there was nothing to do.
        """

        def make(session: Session) -> list[tuple[Job, Any]]:
            jobs = work(session, once)
            once.keep(session, 202, job_id=jobs[-1].id if jobs else None)
            session.flush()
            for job in jobs:
                self.parts.foresee(session, job)
            return [(job, labels_of_job(session, job)) for job in jobs]

        try:
            made = await self.write(make)
        except Replay as replay:
            job_id = replay.job_id
            return (await self.read(lambda session: session.get(Job, job_id)) if job_id else None), True
        running = True
        for job, labels in made:
            running = bool(await self.parts.starts.start(job.id, job.type, labels=labels))
        return (made[-1][0] if made else None), running

    async def change(self, work: Callable[[Session], T]) -> T:
        """As `write`, for a step of a request that the audit log has no row of."""
        return await anyio.to_thread.run_sync(self.write_now, self.parts, work)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Around a body as long as it is in memory: of large ones some come in at once, half of them one team's."""
        announced = self.request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) <= SMALL_BODY:
            yield
            return
        rooms: Rooms = self.request.app.state.read_bodies
        async with rooms.place(self.caller.team_id):
            yield

    @asynccontextmanager
    async def large(self, size: int) -> AsyncIterator[None]:
        """Around what is made of a body that has been read: of large ones only some at once, the others wait."""
        if size <= SMALL_BODY:
            yield
            return
        async with self.request.app.state.large_bodies:
            yield

    def without_key(self) -> Call:
        return Call(self.parts, self.caller, self.request)

    async def end_of(self, job: Job, running: bool = True, *, patience: float | None = None) -> Job:
        """The job when it has ended, or as it is when patience ends.

        A start that is uncertain (Temporal is away, or slow) is given a few seconds to show itself by a claim.
        """
        seconds = self.parts.patience if patience is None else patience
        began = time.monotonic()
        async with self.parts.watch.on(job.id, job.rev) as subscription:
            while True:
                now = await self.read(lambda session: session.get_one(Job, job.id))
                bound = seconds if running or now.started_at is not None else min(seconds, UNCERTAIN)
                left = began + bound - time.monotonic()
                if now.finished_at is not None or left <= 0 or self.parts.watch.closing:
                    return now
                await subscription.wait(left)

    def one(self, data: Any, status: int = 200, headers: dict[str, str] | None = None, **beside: Any) -> Response:
        return Response(json_bytes({"data": data, **beside}), status, headers, media_type=JSON_TYPE)

    def whole(self, rows: Sequence[Json], **beside: Any) -> Response:
        """A list that is never longer than one page."""
        page = {"page": 1, "page_size": max(20, len(rows)), "total": len(rows)}
        return self.one(rows, next_cursor=None, page=page, **beside)

    async def listed(
        self,
        paging: Paging,
        select: Callable[[Session], SelectOfScalar[T]],
        show: Callable[[Session, Sequence[T]], list[Json]],
        *,
        time: Any,
        id: Any,
        position: Callable[[T], tuple[datetime, str]] = lambda row: (row.created_at, row.id),  # type: ignore[attr-defined]
        **beside: Any,
    ) -> Response:
        """A page of a list, newest first, with what both ways of paging want to know."""
        of = self.request.url.path
        page = page_from(of, paging.limit, paging.cursor) if paging.page is None else Page(paging.limit)

        def work(session: Session) -> tuple[list[Json], str | None, int]:
            query = select(session)
            total = count_of(session, query)
            if paging.page is not None:
                rows = fetch_slice(session, query, paging.offset, paging.limit, time=time, id=id)
                more = paging.offset + len(rows) < total
            else:
                rows, more = fetch_page(session, query, page, time=time, id=id)
            cursor = encode_cursor(of, *position(rows[-1])) if more and rows else None
            return show(session, rows), cursor, total

        rows, cursor, total = await self.read(work)
        block = {"page": paging.page or 1, "page_size": paging.limit, "total": total}
        return self.one(rows, next_cursor=cursor, page=block, total=total, **beside)


async def _call(
    request: Request,
    x_miosa_tenant: Annotated[str | None, Header(description="An organisation that the key is of.")] = None,  # noqa: ARG001
) -> Call:
    return Call(request.app.state.parts, request.state.caller, request)


async def _keyed(
    request: Request,
    idempotency_key: Annotated[
        str | None, Header(description="The same key (1 to 255 bytes) and request have one outcome for 24 hours.")
    ] = None,
    x_miosa_tenant: Annotated[str | None, Header(description="An organisation that the key is of.")] = None,  # noqa: ARG001
) -> Call:
    return Call(request.app.state.parts, request.state.caller, request, idempotency_key)


async def _paging(
    limit: Annotated[int | None, Query(ge=1, le=100, description="Rows on a page (20 if left out).")] = None,
    cursor: Annotated[str | None, Query(max_length=1000, description="`next_cursor` of the page before.")] = None,
    page: Annotated[int | None, Query(ge=1, le=10_000, description="Number of the page, from 1.")] = None,
    page_size: Annotated[int | None, Query(ge=1, le=100, description="Rows on a page, with `page`.")] = None,
) -> Paging:
    numbered = page is not None or (page_size is not None and cursor is None and limit is None)
    return Paging(page_size or limit or 20, cursor, (page or 1) if numbered and cursor is None else None)


CallDep = Annotated[Call, Depends(_call, scope="function")]
KeyedDep = Annotated[Call, Depends(_keyed, scope="function")]
PagingDep = Annotated[Paging, Depends(_paging, scope="function")]
