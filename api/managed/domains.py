"""Domains of environments (contract section 15): asked for, proven by DNS, led here, detached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter
from sqlmodel import Session, col
from starlette.responses import Response

from api.domains import own_names
from api.idempotency import Once
from api.managed.answers_around import DomainRow
from api.managed.call import Call, CallDep, KeyedDep, PagingDep
from api.managed.documents import gives, lists, starts_job
from api.managed.environments import E, env_to_change, env_to_read
from api.managed.rows_around import domain_row
from api.managed.schemas import DomainCreate, DomainUpdate, Nothing
from store import domains
from store.domains import DomainRequest, check_hostname
from store.hostnames import hostnames_of
from store.models import Environment, Job, Site
from store.models_domains import Domain
from store.paging import Page

router = APIRouter(tags=["domains"])
Json = dict[str, Any]
READ: Final = "domains:read"
WRITE: Final = "domains:write"
D: Final = E + "/domains/{domain_id}"


def shown(call: Call, session: Session, rows: Sequence[Domain]) -> list[Json]:
    primary = {
        name.name for names in hostnames_of(session, [row.env_id for row in rows]).values() for name in names[:1]
    }
    plan = call.parts.domains
    return [domain_row(row, plan, call.parts.docs_url, primary=row.hostname in primary) for row in rows]


def _found(
    call: Call, session: Session, site_id: str, env_id: str, domain_id: str, *, change: bool
) -> tuple[Site, Environment, Domain]:
    reach = env_to_change if change else env_to_read
    site, environment = reach(call, session, site_id, env_id, WRITE if change else READ)
    return site, environment, domains.domain(session, domain_id, env_id=environment.id, lock=change)


@router.post(E + "/domains", **starts_job("Attach a domain: its DNS records are looked for, then it leads here"))
async def attach_domain(call: KeyedDep, site_id: str, env_id: str, body: DomainCreate) -> Response:
    hostname = check_hostname(body.hostname, own_names(call.parts))
    wanted = DomainRequest(hostname, body.redirect_to_primary, body.redirect_policy)

    def work(session: Session, once: Once) -> Job:
        site, environment = env_to_change(call, session, site_id, env_id, WRITE)
        once.claim(session)
        made = domains.add_domain(session, site, environment, wanted, call.caller.actor)
        return domains.accept_attach(session, site, made, call.caller.actor, patience=call.parts.domain_patience)

    return await call.start(body, work)


@router.get(E + "/domains", **lists(DomainRow, "List an environment's domains, with the records that each needs"))
async def list_domains(call: CallDep, paging: PagingDep, site_id: str, env_id: str) -> Response:
    def fetch(session: Session, page: Page) -> tuple[Sequence[Any], bool]:
        _, environment = env_to_read(call, session, site_id, env_id, READ)
        rows, more = domains.list_domains(session, page, col(Domain.env_id) == environment.id)
        return list(zip(rows, shown(call, session, rows), strict=True)), more

    return await call.page(paging, fetch, lambda row: row[1], lambda row: (row[0].created_at, row[0].id))


@router.get(D, **gives(DomainRow, "Get a domain, with the records that it needs and those that were found"))
async def get_domain(call: CallDep, site_id: str, env_id: str, domain_id: str) -> Response:
    def work(session: Session) -> Json:
        *_, found = _found(call, session, site_id, env_id, domain_id, change=False)
        return shown(call, session, [found])[0]

    return call.one(await call.read(work))


@router.patch(D, **starts_job("Change where a domain redirects to"))
async def update_domain(call: CallDep, site_id: str, env_id: str, domain_id: str, body: DomainUpdate) -> Response:
    def work(session: Session, _once: Once) -> Job:
        site, environment, found = _found(call, session, site_id, env_id, domain_id, change=True)
        if body.redirect_to_primary is not None:
            found.redirect_to_primary = body.redirect_to_primary
        found.redirect_policy = body.redirect_policy or found.redirect_policy
        session.flush()
        domains.choose_primary(session, environment.id)
        return domains.accept_attach(session, site, found, call.caller.actor, patience=0)

    return await call.start(body, work)


@router.post(D + "/verify", **starts_job("Look for a domain's DNS records now"))
async def verify_domain(
    call: KeyedDep, site_id: str, env_id: str, domain_id: str, body: Nothing | None = None
) -> Response:
    def work(session: Session, once: Once) -> Job:
        site, _, found = _found(call, session, site_id, env_id, domain_id, change=True)
        once.claim(session)
        return domains.accept_attach(session, site, found, call.caller.actor, patience=0)

    return await call.start(body, work)


@router.delete(D, **starts_job("Detach a domain: its name is free at once"))
async def detach_domain(
    call: CallDep, site_id: str, env_id: str, domain_id: str, body: Nothing | None = None
) -> Response:
    def work(session: Session, _once: Once) -> Job:
        site, _, found = _found(call, session, site_id, env_id, domain_id, change=True)
        return domains.accept_detach(session, site, found, call.caller.actor)

    return await call.start(body, work)
