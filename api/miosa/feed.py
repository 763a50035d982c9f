"""The organisation's event stream: what happens from now on, told once to each reader."""

from __future__ import annotations

import asyncio
import fnmatch
import re
import time
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from api.miosa import names
from api.miosa.call import Call, CallDep
from api.miosa.deployments import READ
from api.miosa.document import gives_raw
from api.miosa.problems import error_body
from api.miosa.rows import stamp
from api.streams import PING, as_events, frame
from headway.errors import HeadwayError
from store.feed import Fact, Feed

router = APIRouter(tags=["events"])
Json = dict[str, Any]
EVERY: Final = 0.5
_EVENT_ID: Final = re.compile(r"evt_((?:job|sbx)_[0-9A-Z]{1,32})_([a-z._]{1,40})")
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


def fact_key(event_id: str | None) -> str | None:
    """The fact that an event's id names; None for what is no id of an event."""
    found = _EVENT_ID.fullmatch((event_id or "").strip())
    return f"{found[1]}:{found[2]}" if found is not None else None


@router.get("/events/stream", **gives_raw("Follow what happens in the organisation", "text/event-stream"))
async def follow_events(
    call: CallDep,
    types: Annotated[
        str | None, Query(max_length=1_000, description="Which ones, by commas: `deployment.*,sandbox.created`.")
    ] = None,
    last_event_id: Annotated[str | None, Header(description="Resume behind it.")] = None,
) -> Response:
    call.caller.require(READ)
    patterns = [one.strip() for one in (types or "").split(",") if one.strip()]
    feed = Feed(call.sight, call.team_id)
    if (key := fact_key(last_event_id)) is not None:
        await call.read(lambda session: feed.resume(session, key))
    # What happens after this answer's first byte is told.
    missed = await call.read(feed.look)
    frames = _frames(call, feed, patterns, missed)
    return as_events(call, frames)


async def _frames(call: Call, feed: Feed, patterns: list[str], facts: list[Fact]) -> AsyncGenerator[bytes, None]:
    yield b": following\n\n"
    said = time.monotonic()
    while not call.parts.watch.closing:
        for fact in facts:
            row = event_row(fact)
            if not patterns or any(fnmatch.fnmatchcase(row["type"], one) for one in patterns):
                yield f"id: {row['id']}\n".encode() + frame(row["type"], row)
                said = time.monotonic()
        if time.monotonic() - said > PING:
            yield b": ping\n\n"
            said = time.monotonic()
        await asyncio.sleep(EVERY)
        facts = await call.read(feed.look)
