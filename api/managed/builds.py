"""Builds and their logs (contract section 7)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Query
from sqlmodel import Session
from starlette.responses import Response, StreamingResponse

from api.idempotency import Once
from api.managed.answers import BuildRow, PlanRow
from api.managed.call import Call, CallDep, KeyedDep, PagingDep
from api.managed.documents import gives, gives_raw, lists, starts_job
from api.managed.environments import E, env_to_change, env_to_read
from api.managed.rows import build_row
from api.managed.schemas import BuildCreate, RunStatus
from api.preferences import number_of, wants_events
from api.streams import PING, as_events, frame, of_build
from headway.errors import HeadwayError
from store import builds
from store.environments import require_ready
from store.models import Build, Job
from store.paging import Page

router = APIRouter(tags=["builds"])
READ = "deployments:read"


@router.post(E + "/builds", **starts_job("Start a build from a git ref"))
async def start_build(call: KeyedDep, site_id: str, env_id: str, body: BuildCreate | None = None) -> Response:
    wanted = body or BuildCreate()
    ref = builds.check_ref(wanted.ref) if wanted.ref is not None else None

    def work(session: Session, once: Once) -> Job:
        site, environment = env_to_change(call, session, site_id, env_id, "deployments:write")
        once.claim(session)
        require_ready(environment)
        return builds.accept_build(session, site, environment, call.caller.actor, ref=ref, clean=wanted.clean)

    return await call.start(body, work)


@router.get(E + "/builds", **lists(BuildRow, "List an environment's builds"))
async def list_builds(
    call: CallDep,
    paging: PagingDep,
    site_id: str,
    env_id: str,
    status: RunStatus | None = None,
    ref: Annotated[str | None, Query(max_length=255)] = None,
) -> Response:
    def fetch(session: Session, page: Page) -> tuple[Sequence[Build], bool]:
        _, environment = env_to_read(call, session, site_id, env_id, READ)
        return builds.list_builds(session, environment.id, page, status=status, ref=ref)

    return await call.page(paging, fetch, lambda build: build_row(build, call.parts.docs_url))


@router.get(E + "/builds/{build_id}", **gives(BuildRow, "Get a build"))
async def get_build(call: CallDep, site_id: str, env_id: str, build_id: str) -> Response:
    build = await call.read(lambda session: _build(call, session, site_id, env_id, build_id))
    return call.one(build_row(build, call.parts.docs_url))


@router.get(E + "/builds/{build_id}/plan", **gives(PlanRow, "Get a build's plan: what it ran, and what decided so"))
async def get_plan(call: CallDep, site_id: str, env_id: str, build_id: str) -> Response:
    build = await call.read(lambda session: _build(call, session, site_id, env_id, build_id))
    if build.plan is None:
        raise HeadwayError("build.plan_not_found", "No plan is kept of this build: it has not ended, or it failed.")
    return call.one(build.plan)


@router.get(
    E + "/builds/{build_id}/log", **gives_raw("A build's log; as text/event-stream it follows", "text/plain", "Lines.")
)
async def build_log(
    call: CallDep,
    site_id: str,
    env_id: str,
    build_id: str,
    accept: Annotated[str | None, Header()] = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    build = await call.read(lambda session: _build(call, session, site_id, env_id, build_id))
    if wants_events(accept, "text/plain"):
        frames = _follow(call, build, number_of(last_event_id) or 0)
        return as_events(call, frames)
    return StreamingResponse(_text(call, build), media_type="text/plain; charset=utf-8")


def _build(call: Call, session: Session, site_id: str, env_id: str, build_id: str) -> Build:
    _, environment = env_to_read(call, session, site_id, env_id, READ)
    return builds.build_of(session, environment.id, build_id)


async def _text(call: Call, build: Build) -> AsyncGenerator[bytes, None]:
    reader = call.parts.events.reader(build.job_id)
    while lines := await anyio.to_thread.run_sync(reader.read):
        yield "".join(line["line"] + "\n" for line in lines if of_build(line)).encode()


async def _follow(call: Call, build: Build, after: int) -> AsyncGenerator[bytes, None]:
    reader = call.parts.events.reader(build.job_id, after=after)
    async with call.parts.watch.on(build.job_id, 0) as subscription:
        while True:
            now = await call.read(lambda session: session.get_one(Build, build.id))
            while lines := await anyio.to_thread.run_sync(reader.read):
                yield b"".join(
                    frame("log", {name: line[name] for name in ("ts", "stream", "stage", "line")}, line["n"])
                    for line in lines
                    if of_build(line)
                )
            if now.finished_at is not None:
                yield frame("end", {"status": now.status})
                return
            if call.parts.watch.closing:
                return
            if not await subscription.wait(PING):
                yield b": ping\n\n"
