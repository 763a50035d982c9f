"""One request of the managed dialect: its caller, its parts, and the ways to answer it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import Depends, Header, Query, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel
from sqlmodel import Session
from starlette.responses import Response

from api.conversation import Conversation
from api.idempotency import Once, Replay
from api.managed.rows import etag, job_row
from api.paging import EPOCH, number_after, page_from, pagination
from api.problems import JSON_TYPE, json_bytes
from headway.errors import HeadwayError
from store import jobs
from store.labels import labels_of_job
from store.models import Job
from store.paging import Page
from temporal.messages import Labels

T = TypeVar("T")
Json = dict[str, Any]
Position = Callable[[Any], tuple[datetime, str]]


class Call(Conversation):
    @property
    def request_id(self) -> str:
        return str(self.request.state.request_id)

    def once(self, body: BaseModel | None) -> Once:
        given = body.model_dump(mode="json", exclude_unset=True) if body is not None else {}
        request = self.request
        return Once.of(self.caller.principal, self.idempotency_key, request.method, request.url.path, given)

    async def start(
        self, body: BaseModel | None, work: Callable[[Session, Once], Job], *, cancel: bool = False
    ) -> Response:
        """Accept work: one transaction, then the start; 202 with the job, or the job of the first such request.

        With `cancel`, the job that `work` gives back is told to stop instead.
        """
        once = self.once(body)

        def accept(session: Session) -> tuple[Job, Labels]:
            job = work(session, once)
            once.keep(session, 202, job_id=job.id)
            session.flush()
            self.parts.foresee(session, job)
            return job, labels_of_job(session, job)

        try:
            job, labels = await self.write(accept)
        except Replay as replay:
            return await self._replayed(replay)
        if cancel:
            self.parts.watch.poke(job.id)
            await self.parts.starts.cancel(job.id)
        else:
            await self.parts.starts.start(job.id, job.type, labels=labels)
        return self.accepted(job)

    async def create(
        self,
        body: BaseModel | None,
        work: Callable[[Session, Once], tuple[Json, Json]],
        *,
        status: int = 201,
        located: bool = False,
    ) -> Response:
        """Make a row. `work` returns what is answered, and what a replay may show of it. `located`: it can be asked for
        by its id below this path, and the answer says where.
        """
        once = self.once(body)

        def answer(row: Json, headers: dict[str, str]) -> Response:
            path = f"{self.request.url.path.rstrip('/')}/{quote(str(row['id']), safe='')}" if located else ""
            return self.one(row, status, {"Location": path, **headers} if located else headers)

        def make(session: Session) -> Json:
            shown, kept = work(session, once)
            once.keep(session, status, body=kept)
            return shown

        try:
            return answer(await self.write(make), {})
        except Replay as replay:
            return answer(replay.body, {"Idempotent-Replayed": "true"})

    async def _replayed(self, replay: Replay) -> Response:
        job = await self.read(lambda session: jobs.job(session, self.sight, replay.job_id or ""))
        return self.accepted(job, {"Idempotent-Replayed": "true"})

    def accepted(self, job: Job, headers: dict[str, str] | None = None) -> Response:
        shown = job_row(job, self.parts.docs_url)
        return self.one(shown, 202, {"Location": f"/v1/jobs/{job.id}", "ETag": etag(job), **(headers or {})})

    def one(self, data: Json, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        body = {"data": data, "request_id": self.request_id}
        return Response(json_bytes(body), status, headers, media_type=JSON_TYPE)

    def many(self, data: Sequence[Json], block: Json) -> Response:
        body = {"data": data, "pagination": block, "request_id": self.request_id}
        return Response(json_bytes(body), media_type=JSON_TYPE)

    async def page(
        self,
        paging: Paging,
        fetch: Callable[[Session, Page], tuple[Sequence[Any], bool]],
        show: Callable[[Any], Json],
        position: Position = lambda row: (row.created_at, row.id),
    ) -> Response:
        """A page of a list. The list is named by the request's path; its cursors belong to it."""
        of = self.request.url.path
        page = page_from(of, paging.limit, paging.cursor)
        rows, more = await self.read(lambda session: fetch(session, page))
        return self.many([show(row) for row in rows], pagination(of, rows, more, position))

    def numbered(self, paging: Paging, rows: Sequence[T], show: Callable[[T], Json]) -> Response:
        """A page of a list that is known as a whole, by number."""
        of = self.request.url.path
        start = number_after(page_from(of, paging.limit, paging.cursor))
        some = rows[start : start + paging.limit]
        end = start + len(some)
        block = pagination(of, some, end < len(rows), lambda _: (EPOCH, str(end)))
        return self.many([show(row) for row in some], block)


@dataclass(frozen=True)
class Paging:
    limit: int
    cursor: str | None


async def _call(request: Request) -> Call:
    _check_query(request)
    return Call(request.app.state.parts, request.state.caller, request)


async def _keyed(
    request: Request,
    idempotency_key: Annotated[
        str | None, Header(description="The same key (1 to 255 bytes) and request have one outcome for 24 hours.")
    ] = None,
) -> Call:
    _check_query(request)
    return Call(request.app.state.parts, request.state.caller, request, idempotency_key)


_QUERIES: dict[str, frozenset[str]] = {}


def _check_query(request: Request) -> None:
    """A filter with a typing error in its name would answer with everything; one that stands twice, with half.

    Raises request.unknown_parameter or request.invalid_parameter.
    """
    if not request.url.query:
        return
    route: APIRoute = request.scope["route"]
    if route.unique_id not in _QUERIES:
        _QUERIES[route.unique_id] = frozenset(_asked(route.dependant))
    given: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name not in _QUERIES[route.unique_id]:
            raise HeadwayError("request.unknown_parameter", f"There is no parameter {name!r} here.", param=name)
        if name in given:
            raise HeadwayError("request.invalid_parameter", f"{name} stands twice.", param=name)
        given.add(name)


def _asked(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for below in dependant.dependencies:
        yield from _asked(below)


async def _paging(
    limit: Annotated[int, Query(ge=1, le=100, description="Rows on a page.")] = 20,
    cursor: Annotated[str | None, Query(max_length=1000, description="`next_cursor` of the page before.")] = None,
) -> Paging:
    return Paging(limit, cursor)


CallDep = Annotated[Call, Depends(_call, scope="function")]
KeyedDep = Annotated[Call, Depends(_keyed, scope="function")]
PagingDep = Annotated[Paging, Depends(_paging, scope="function")]
Handler = Callable[..., Awaitable[Response]]
