"""What visitors asked of an environment: metrics by minute, and the last requests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

import anyio
from fastapi import APIRouter, Query
from starlette.responses import Response

from api.managed.answers_around import MetricsRow, RequestLogRow
from api.managed.call import Call, CallDep
from api.managed.documents import gives, lists
from api.managed.environments import E, env_to_read
from api.managed.logs import READ, cursor_of, position_of
from api.requests import Tally, total
from store.models import utcnow

router = APIRouter(tags=["observability"])
DAY: Final = 24 * 60
Json = dict[str, Any]


@router.get(E + "/metrics", **gives(MetricsRow, "An environment's requests by minute"))
async def get_metrics(
    call: CallDep,
    site_id: str,
    env_id: str,
    minutes: Annotated[int, Query(ge=1, le=DAY, description="So many minutes up to now.")] = 60,
) -> Response:
    await _require(call, site_id, env_id)
    now = int(utcnow().timestamp() // 60)
    since = now - minutes + 1
    tallies = await anyio.to_thread.run_sync(call.parts.requests.tallies, env_id, since, now)
    return call.one(
        {
            "env_id": env_id,
            "access_log": call.parts.access_log,
            "since": moment(since),
            "until": moment(now + 1),
            "total": shown(total(tallies.values())),
            "minutes": [{"minute": moment(minute), **shown(one)} for minute, one in tallies.items()],
        }
    )


@router.get(E + "/request-logs", **lists(RequestLogRow, "An environment's last requests, oldest first"))
async def list_request_logs(
    call: CallDep,
    site_id: str,
    env_id: str,
    tail: Annotated[int, Query(ge=0, le=1000, description="How many requests.")] = 100,
    cursor: Annotated[str | None, Query(max_length=1000, description="`next_cursor`: those before.")] = None,
) -> Response:
    await _require(call, site_id, env_id)
    path = call.request.url.path
    before = position_of(path, cursor)
    found, more = await anyio.to_thread.run_sync(call.parts.requests.last, env_id, tail, before)
    rows = [request_row(number, record) for number, record in found]
    block = {"next_cursor": cursor_of(path, rows[0]["id"]) if more and rows else None, "has_more": more}
    return call.many(rows, block)


async def _require(call: Call, site_id: str, env_id: str) -> None:
    await call.read(lambda session: env_to_read(call, session, site_id, env_id, READ))


def shown(tally: Tally) -> Json:
    classes = {f"status_{digit}xx": tally.classes[digit] for digit in range(2, 6)}
    return {"requests": tally.requests, **classes, "bytes": tally.size, **tally.percentiles()}


def request_row(number: int, record: list[Any]) -> Json:
    names = ("ts", "hostname", "method", "path", "status", "duration_ms", "bytes", "unlisted")
    return {"id": number, **dict(zip(names, record, strict=True))}


def moment(minute: int) -> str:
    return datetime.fromtimestamp(60 * minute, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
