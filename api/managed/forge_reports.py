"""What a site reports to its forge: where, with which token (which is never shown), and what became of each report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from fastapi import APIRouter
from sqlmodel import Session
from starlette.responses import Response

from adapters.forges.places import place_of
from api.idempotency import Once
from api.managed.answers import DeletedRow
from api.managed.call import Call, CallDep, KeyedDep, PagingDep
from api.managed.documents import gives, lists
from api.managed.forge_schemas import ForgeLinkPut, ForgeLinkRow, ForgeReportRow
from api.managed.schemas import Nothing
from api.managed.sites import site_to_change, site_to_read
from headway.errors import HeadwayError
from store import forge_links, reports
from store.events import stamp
from store.forge_links import LinkRequest
from store.models import Site
from store.models_reports import ForgeLink, ForgeReport
from store.paging import Page

router = APIRouter(prefix="/sites/{site_id}/forge", tags=["forges"])
Json = dict[str, Any]
READ: Final = "sites:read"
WRITE: Final = "sites:write"
State = Literal["pending", "delivered", "failed", "skipped"]


def link_row(link: ForgeLink) -> Json:
    return {
        "site_id": link.site_id,
        "provider": link.provider,
        "api_url": link.api_url,
        "repository": link.repository,
        "statuses": link.statuses,
        "comments": link.comments,
        "failing_since": stamp(link.failing_since),
        "last_error": link.last_error,
        "created_at": stamp(link.created_at),
        "updated_at": stamp(link.updated_at),
    }


def report_row(report: ForgeReport) -> Json:
    shown = {name: report.wanted.get(name) for name in ("state", "branch", "environment")}
    return {
        "id": report.id,
        "kind": report.kind,
        "status": report.state,
        **shown,
        "commit_sha": report.wanted.get("commit"),
        "job_id": report.job_id,
        "comments": report.comments,
        "attempts": len(report.tries),
        "tries": report.tries,
        "created_at": stamp(report.created_at),
        "ended_at": stamp(report.ended_at),
    }


@router.get("", **gives(ForgeLinkRow, "The forge that a site reports to, without its token"))
async def get_forge(call: CallDep, site_id: str) -> Response:
    def work(session: Session) -> Json:
        return link_row(forge_links.link(session, site_to_read(call, session, site_id, READ).id))

    return call.one(await call.read(work))


@router.put("", **gives(ForgeLinkRow, "Report to this forge from now on, and ask it whether it takes the token"))
async def put_forge(call: CallDep, site_id: str, body: ForgeLinkPut) -> Response:
    def work(session: Session) -> Json:
        site = site_to_change(call, session, site_id, WRITE)
        wanted = _wanted(call, site, body)
        return link_row(forge_links.put_link(session, call.parts.webhook_vault, site, wanted, call.caller.actor))

    return call.one(await call.write(work))


def _wanted(call: Call, site: Site, body: ForgeLinkPut) -> LinkRequest:
    place = place_of(body.provider, site.repository, body.api_url, body.repository)
    try:
        call.parts.targets.check(place.api_url)
    except HeadwayError as error:
        raise HeadwayError("forge_link.url_refused", error.message, param="api_url") from error
    return LinkRequest(body.provider, place.api_url, place.repository, body.token, body.statuses, body.comments)


@router.delete("", **gives(DeletedRow, "Report to no forge any more, and forget its token and reports"))
async def delete_forge(call: CallDep, site_id: str) -> Response:
    def work(session: Session) -> None:
        site = site_to_change(call, session, site_id, WRITE)
        forge_links.delete_link(session, forge_links.link(session, site.id, lock=True))

    await call.write(work)
    return call.one({"id": site_id, "deleted": True})


@router.get("/reports", **lists(ForgeReportRow, "List what a site reported, with each try and its outcome"))
async def list_forge_reports(call: CallDep, paging: PagingDep, site_id: str, status: State | None = None) -> Response:
    def fetch(session: Session, page: Page) -> tuple[Sequence[ForgeReport], bool]:
        link = forge_links.link(session, site_to_read(call, session, site_id, READ).id)
        return reports.list_reports(session, link.id, page, state=status)

    return await call.page(paging, fetch, report_row)


@router.post("/reports/{report_id}/retry", **gives(ForgeReportRow, "Send a report that was given up", status=201))
async def retry_forge_report(call: KeyedDep, site_id: str, report_id: str, body: Nothing | None = None) -> Response:
    def work(session: Session, once: Once) -> tuple[Json, Json]:
        link = forge_links.link(session, site_to_change(call, session, site_id, WRITE).id)
        once.claim(session)
        row = report_row(reports.retry(session, link, report_id))
        return row, row

    return await call.create(body, work)
