"""Jobs: list, get, long-poll, stream, cancel (contract section 8)."""

from __future__ import annotations

import time
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query
from sqlmodel import Session
from starlette.responses import Response

from api.idempotency import Once
from api.managed.answers import JobRow
from api.managed.call import Call, CallDep, KeyedDep, PagingDep
from api.managed.documents import gives, gives_raw, lists, starts_job
from api.managed.rows import etag, job_row
from api.managed.schemas import JobStatus, Nothing, ResourceType
from api.preferences import matches, number_of, preferred_wait
from api.streams import JobStream, as_events
from store import jobs
from store.models import Job

router = APIRouter(tags=["jobs"])
LONGEST: Final = 60
_SCOPES: Final = {
    "site": "sites:write",
    "environment": "environments:write",
    "domain": "domains:write",
    "sandbox": "sandboxes:write",
}


@router.get("/jobs", **lists(JobRow, "List jobs"))
async def list_jobs(
    call: CallDep,
    paging: PagingDep,
    status: JobStatus | None = None,
    resource_type: ResourceType | None = None,
) -> Response:
    call.caller.require("jobs:read")
    return await call.page(
        paging,
        lambda session, page: jobs.list_jobs(session, call.sight, page, status=status, resource_type=resource_type),
        lambda job: job_row(job, call.parts.docs_url),
    )


_GET = gives(JobRow, "Get a job; with If-None-Match and a wait, when it has changed")
_GET["responses"][304] = {"description": "Nothing has changed."}
_GET["responses"][200]["headers"] = {
    **_GET["responses"][200]["headers"],
    "ETag": {"schema": {"type": "string"}, "description": "Changes with the job."},
}


@router.get("/jobs/{job_id}", **_GET)
async def get_job(
    call: CallDep,
    job_id: str,
    wait: Annotated[int | None, Query(ge=0, description="Seconds to wait for a change; at most 60 count.")] = None,
    prefer: Annotated[str | None, Header(description="`wait=30`: as the query parameter.")] = None,
    if_none_match: Annotated[str | None, Header(description="The ETag that is known already.")] = None,
) -> Response:
    job = await call.read(lambda session: _job(call, session, job_id))
    seconds = min(LONGEST, wait if wait is not None else preferred_wait(prefer))
    known = matches(if_none_match, etag(job))
    if seconds and job.finished_at is None and (known or if_none_match is None):
        job = await _changed(call, job, seconds)
        known = matches(if_none_match, etag(job))
    if known:
        return Response(status_code=304, headers={"ETag": etag(job)})
    return call.one(job_row(job, call.parts.docs_url), headers={"ETag": etag(job)})


@router.get("/jobs/{job_id}/stream", **gives_raw("Follow a job", "text/event-stream", "Events: job, log, end."))
async def stream_job(
    call: CallDep, job_id: str, last_event_id: Annotated[str | None, Header(description="Resume behind it.")] = None
) -> Response:
    job = await call.read(lambda session: _job(call, session, job_id))
    parts = call.parts
    stream = JobStream(
        parts.store,
        parts.events,
        parts.watch,
        job,
        lambda row: job_row(row, parts.docs_url),
        after=number_of(last_event_id),
    )
    return as_events(call, stream.frames())


@router.post("/jobs/{job_id}/cancel", **starts_job("Cancel a job that has not switched anything yet"))
async def cancel_job(call: KeyedDep, job_id: str, body: Nothing | None = None) -> Response:
    def work(session: Session, once: Once) -> Job:
        job = jobs.job(session, call.sight, job_id, lock=True)
        scope = _SCOPES.get(job.resource_type, "deployments:write")
        call.caller.require_change(scope, site_id=job.site_id, env_id=job.env_id)
        once.claim(session)
        return jobs.cancel_job(session, job)

    return await call.start(body, work, cancel=True)


def _job(call: Call, session: Session, job_id: str) -> Job:
    job = jobs.job(session, call.sight, job_id)
    call.caller.require("jobs:read")
    return job


async def _changed(call: Call, job: Job, seconds: float) -> Job:
    """The job when it differs from what it was, or when the time is up."""
    until = time.monotonic() + seconds
    async with call.parts.watch.on(job.id, job.rev) as subscription:
        while True:
            now = await call.read(lambda session: session.get_one(Job, job.id))
            left = until - time.monotonic()
            if now.rev != job.rev or left <= 0 or call.parts.watch.closing:
                return now
            await subscription.wait(left)
