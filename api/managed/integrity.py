"""Integrity of the object store: what scrubs found, and a scrub on demand; the operator's alone."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter
from sqlmodel import Session
from starlette.responses import Response

from api.idempotency import Once
from api.managed.answers_evidence import FindingRow, IntegrityRow
from api.managed.call import CallDep, KeyedDep, PagingDep
from api.managed.documents import gives, lists, starts_job
from api.managed.machines import operator_only
from api.managed.schemas import ScrubRun
from store.events import stamp
from store.integrity import REPORT, list_findings, totals
from store.jobs import add_upkeep
from store.models import Job, Mark
from store.models_integrity import Finding

router = APIRouter(prefix="/integrity", tags=["integrity"])
Json = dict[str, Any]


@router.get("", **gives(IntegrityRow, "What scrubs of the object store found (operator)"))
async def get_integrity(call: CallDep) -> Response:
    operator_only(call)

    def work(session: Session) -> Json:
        report = session.get(Mark, REPORT)
        return {"totals": totals(session), "last_run": json.loads(report.value) if report is not None else None}

    return call.one(await call.read(work))


@router.get("/findings", **lists(FindingRow, "Damaged objects, the newest first (operator)"))
async def findings(call: CallDep, paging: PagingDep) -> Response:
    operator_only(call)
    return await call.page(paging, list_findings, finding_row, lambda row: (row.found_at, row.id))


@router.post("/scrubs", **starts_job("Read a part of the object store now, or all of it, and mend it (operator)"))
async def scrub(call: KeyedDep, body: ScrubRun | None = None) -> Response:
    operator_only(call)
    whole = (body or ScrubRun()).whole

    def work(session: Session, once: Once) -> Job:
        once.claim(session)
        return add_upkeep(
            session,
            team_id=call.caller.team_id,
            type="integrity.scrub",
            about="integrity",
            input={"whole": whole},
            actor=call.caller.actor,
        )

    return await call.start(body, work)


def finding_row(row: Finding) -> Json:
    state = "mended" if row.mended_at is not None else "lost" if row.settled_at is not None else "open"
    return {
        "id": row.id,
        "site_id": row.site_id,
        "object": row.object,
        "name": row.name,
        "damage": row.damage,
        "state": state,
        "mended_by": row.mended_by,
        "tried": row.tried,
        "log_index": row.log_index,
        "found_at": stamp(row.found_at),
        "mended_at": stamp(row.mended_at),
    }
