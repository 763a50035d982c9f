"""Retention: what is kept how long, what the last run did, and a run on demand; the operator's alone."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter
from sqlmodel import Session
from starlette.responses import Response

from api.idempotency import Once
from api.managed.answers_evidence import RetentionRow
from api.managed.call import CallDep, KeyedDep
from api.managed.documents import gives, starts_job
from api.managed.machines import operator_only
from api.managed.schemas import RetentionRun
from store.caches import cached_bytes
from store.jobs import add_upkeep
from store.models import Job, Mark
from store.retention import totals

router = APIRouter(prefix="/retention", tags=["retention"])
Json = dict[str, Any]
REPORT = "retention.report"


@router.get("", **gives(RetentionRow, "What is kept, and what the last collection did (operator)"))
async def get_retention(call: CallDep) -> Response:
    operator_only(call)
    rules = call.parts.retention

    def work(session: Session) -> Json:
        report = session.get(Mark, REPORT)
        return {
            "after_seconds": int(rules.after.total_seconds()),
            "wait_seconds": int(rules.wait.total_seconds()),
            "totals": {**totals(session), "cache_bytes": cached_bytes(session)},
            "last_run": json.loads(report.value) if report is not None else None,
        }

    return call.one(await call.read(work))


@router.post("/runs", **starts_job("Mark and collect now, or with dry_run only count (operator)"))
async def run_retention(call: KeyedDep, body: RetentionRun | None = None) -> Response:
    operator_only(call)
    dry_run = (body or RetentionRun()).dry_run

    def work(session: Session, once: Once) -> Job:
        once.claim(session)
        return add_upkeep(
            session,
            team_id=call.caller.team_id,
            type="retention.run",
            about="retention",
            input={"dry_run": dry_run},
            actor=call.caller.actor,
        )

    return await call.start(body, work)
