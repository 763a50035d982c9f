"""The organisation's event stream: what happens from now on, told once to each reader."""

from __future__ import annotations

import asyncio
import fnmatch
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from starlette.responses import Response, StreamingResponse

from api.miosa import names
from api.miosa.call import Call, CallDep
from api.miosa.deployments import READ
from api.miosa.document import gives_raw
from api.miosa.problems import error_body
from api.miosa.rows import stamp
from api.miosa.versions import STREAM_HEADERS
from api.streams import PING, frame
from headway.errors import HeadwayError
from store.feed import Fact, Feed

router = APIRouter(tags=["events"])
Json = dict[str, Any]
EVERY: Final = 0.5
TYPES: Final = {
    "site.created": "deployment.created",
    "site.stopped": "deployment.stopped",
    "site.deleted": "deployment.deleted",
    "build.started": "deployment.build_started",
    "build.succeeded": "deployment.build_succeeded",
    "build.failed": "deployment.build_failed",
    "rollout.succeeded": "deployment.published",
    "job.ended": "operation.finished",
}


def event_row(fact: Fact) -> Json:
    data = {
        "deployment_id": names.shown_or_none(fact.site_id),
        "version_id": names.shown_or_none(fact.build_id),
        "operation_id": fact.job_id,
        "sandbox_id": fact.sandbox_id,
    }
    shown: Json = {name: value for name, value in data.items() if value is not None}
    if fact.error is not None:
        error = error_body(HeadwayError.from_dict(fact.error), "")["error"]
        shown["error"] = {name: error[name] for name in ("code", "message")}
    kind = TYPES.get(fact.kind, fact.kind)
    return {"id": f"evt_{fact.key.replace(':', '_')}", "type": kind, "created_at": stamp(fact.moment), "data": shown}


@router.get("/events/stream", **gives_raw("Follow what happens in the organisation", "text/event-stream"))
async def follow_events(
    call: CallDep,
    types: Annotated[
        str | None, Query(max_length=1_000, description="Which ones, by commas: `deployment.*,sandbox.created`.")
    ] = None,
) -> Response:
    call.caller.require(READ)
    patterns = [one.strip() for one in (types or "").split(",") if one.strip()]
    feed = Feed(call.sight, call.team_id)
    # What happens after this answer's first byte is told.
    await call.read(feed.look)
    return StreamingResponse(_frames(call, feed, patterns), media_type="text/event-stream", headers=STREAM_HEADERS)


async def _frames(call: Call, feed: Feed, patterns: list[str]) -> AsyncIterator[bytes]:
    yield b": following\n\n"
    said = time.monotonic()
    while not call.parts.watch.closing:
        for fact in await call.read(feed.look):
            row = event_row(fact)
            if not patterns or any(fnmatch.fnmatchcase(row["type"], one) for one in patterns):
                yield f"id: {row['id']}\n".encode() + frame(row["type"], row)
                said = time.monotonic()
        if time.monotonic() - said > PING:
            yield b": ping\n\n"
            said = time.monotonic()
        await asyncio.sleep(EVERY)
