"""The audit log: every call that changed something, of both dialects; as a list, and as a chain that can be checked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AwareDatetime
from sqlmodel import Session
from starlette.responses import Response

from adapters.ledger.bundles import bundle_of
from adapters.ledger.entry import entry_of
from api.managed.call import CallDep, PagingDep
from api.managed.documents import gives_raw, lists
from api.managed.ledger import JSON_LINES, item_of
from api.managed.policy_schemas import AuditLogRow
from headway.errors import HeadwayError
from store import audit, ledger
from store.models_policy import AuditRow
from store.paging import Page

router = APIRouter(tags=["audit"])
READ = "security:read"
Json = dict[str, Any]
Name = Annotated[str | None, Query(max_length=100)]
Number = Annotated[int, Query(ge=0, le=1 << 53)]


@router.get("/audit", **lists(AuditLogRow, "Calls that changed something: by whom, from where"))
async def list_audit(
    call: CallDep,
    paging: PagingDep,
    site_id: Name = None,
    env_id: Name = None,
    account_id: Name = None,
    key_id: Name = None,
    action: Name = None,
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
) -> Response:
    call.caller.require(READ)
    wanted = audit.Wanted(site_id, env_id, account_id, key_id, action, _utc(since, "since"), _utc(until, "until"))

    def fetch(session: Session, page: Page) -> tuple[Sequence[AuditRow], bool]:
        return audit.list_calls(session, call.sight, wanted, page)

    return await call.page(paging, fetch, lambda row: {**audit.document(row), "seq": row.seq})


@router.get("/audit/export", **gives_raw("The chain in order, one link a line", JSON_LINES, "A line each."))
async def export_audit(
    call: CallDep, start: Number = 0, limit: Annotated[int, Query(ge=1, le=2000)] = 1000
) -> Response:
    call.caller.require(READ)
    found = await call.read(lambda session: audit.links(session, call.sight, start, limit))
    return Response(_lines(found), media_type=JSON_LINES)


@router.get("/audit/anchors", **gives_raw("The ledger's entries about the chain, in order", JSON_LINES, "A line each."))
async def list_anchors(call: CallDep, start: Number = 0, limit: Annotated[int, Query(ge=1, le=500)] = 200) -> Response:
    call.caller.require(READ)

    def work(session: Session) -> list[Json]:
        return [
            {
                "log_index": entry.index,
                "bundle": json.loads(bundle_of(entry_of(entry.body, entry.envelope), item_of(session, entry))),
            }
            for entry in ledger.entries_of_kind(session, "audit", start, limit)
        ]

    return Response(_lines(await call.read(work)), media_type=JSON_LINES)


def _lines(rows: list[Json]) -> bytes:
    return b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows)


def _utc(moment: datetime | None, param: str) -> datetime | None:
    try:
        return moment.astimezone(UTC) if moment is not None else None
    except OverflowError:
        message = f"{param} is a time from the year 1 to 9999, in UTC."
        raise HeadwayError("request.invalid_parameter", message, param=param) from None
