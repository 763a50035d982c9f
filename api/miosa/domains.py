"""Domains of deployments, and of the whole organisation (contract section 7.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar
from starlette.responses import Response

from api.domains import own_names
from api.idempotency import Once
from api.miosa import names
from api.miosa.answers import DomainRow
from api.miosa.call import Call, CallDep, KeyedDep, PagingDep
from api.miosa.deployments import D, Filter, site_of
from api.miosa.document import gives, lists
from api.miosa.rows import stamp
from api.miosa.schemas import DomainAdd, DomainAssign, DomainChange, Nothing
from headway.errors import HeadwayError
from store import domains, environments
from store.domains import DomainRequest, check_hostname
from store.models import Environment, Job, Site
from store.models_domains import Domain

router = APIRouter(tags=["domains"])
Json = dict[str, Any]
READ: Final = "read"
WRITE: Final = "write"
ONE: Final = D + "/domains/{domain_id}"
FLAT: Final = "/custom-domains"


def domain_row(call: Call, domain: Domain) -> Json:
    """`status` verified: proven, and on its way to the hosts."""
    plan = call.parts.domains
    records = plan.records(domain.hostname, domain.token)
    return {
        "id": domain.id,
        "tenant_id": domain.team_id,
        "deployment_id": names.shown(domain.site_id),
        "environment_id": domain.env_id,
        "domain": domain.hostname,
        "fqdn": domain.hostname,
        "status": domain.status,
        "redirect_policy": domain.redirect_policy,
        "verification_target": plan.cname(domain.token),
        "dns_records": records,
        "instructions": plan.instructions(domain.hostname, domain.token),
        "found_records": (domain.found or {}).get("records", []),
        "error": names.worded(domain.error["message"]) if domain.error else None,
        "verified_at": stamp(domain.verified_at),
        "tls_issued_at": stamp(domain.tls_issued_at),
        "checked_at": stamp(domain.checked_at),
        "created_at": stamp(domain.created_at),
    }


def _scope(call: Call, action: str) -> str:
    """Scopes of domains and of deployments both do (contract section 1.1)."""
    own = f"domains:{action}"
    return own if own in call.caller.scopes else f"deployments:{action}"


def _environment(call: Call, session: Session, site: Site, name: str | None) -> Environment:
    found = environments.target(session, call.sight, site, name or "production", param="environment")
    call.caller.require_change(_scope(call, WRITE), site_id=site.id, env_id=found.id)
    return found


async def _adding(call: Call, body: DomainAdd, deployment_id: str) -> Response:
    name = body.domain or body.fqdn or body.hostname
    if name is None:
        raise HeadwayError("request.missing_parameter", "domain is required.", param="domain")
    hostname = check_hostname(name, own_names(call.parts), param="domain")
    wanted = DomainRequest(hostname, redirect_policy=body.redirect_policy or "none")

    def work(session: Session, once: Once) -> tuple[Json, Json]:
        site = site_of(call, session, deployment_id, _scope(call, WRITE))
        environment = _environment(call, session, site, body.environment)
        once.claim(session)
        row = domain_row(call, domains.add_domain(session, site, environment, wanted, call.caller.actor))
        return row, row

    return await call.create(body, work)


def _visible(call: Call) -> SelectOfScalar[Domain]:
    return (
        select(Domain)
        .join(Site, col(Site.id) == col(Domain.site_id))
        .join(Environment, col(Environment.id) == col(Domain.env_id))
        .where(*call.sight.sites(), *call.sight.environments(), Domain.team_id == call.team_id)
        .where(col(Domain.deleted_at).is_(None))
    )


def _listed(call: Call, rows: Sequence[Domain]) -> list[Json]:
    return [domain_row(call, row) for row in rows]


def _one(
    call: Call, session: Session, domain_id: str, action: str, deployment_id: str | None = None
) -> tuple[Site, Domain]:
    """404 before 403."""
    query = _visible(call).where(Domain.id == domain_id)
    if deployment_id is not None:
        query = query.where(Domain.site_id == names.site_id(deployment_id))
    found = session.exec(query.with_for_update(of=Domain) if action == WRITE else query).one_or_none()
    if found is None:
        raise HeadwayError("domain.not_found", f"There is no domain {domain_id}.")
    if action == WRITE:
        call.caller.require_change(_scope(call, action), site_id=found.site_id, env_id=found.env_id)
    else:
        call.caller.require(_scope(call, action))
    return session.get_one(Site, found.site_id), found


async def _attached(call: Call, domain_id: str, deployment_id: str | None, change: DomainChange | None) -> Response:
    """The look is a job; what it finds in a few seconds is in the answer."""

    def work(session: Session, _once: Once) -> list[Job]:
        site, found = _one(call, session, domain_id, WRITE, deployment_id)
        if change is not None and change.redirect_policy is not None:
            found.redirect_policy = change.redirect_policy
            session.flush()
            domains.choose_primary(session, found.env_id)
        return [domains.accept_attach(session, site, found, call.caller.actor, patience=0)]

    job, running = await call.accept(call.once(None), work)
    await call.end_of(job, running)

    def read(session: Session) -> Json:
        return domain_row(call, _one(call, session, domain_id, READ, deployment_id)[1])

    return call.one(await call.read(read))


async def _detached(call: Call, domain_id: str, deployment_id: str | None) -> Response:
    def work(session: Session, _once: Once) -> list[Job]:
        site, found = _one(call, session, domain_id, WRITE, deployment_id)
        return [domains.accept_detach(session, site, found, call.caller.actor)]

    await call.accept(call.once(None), work)
    return Response(status_code=204)


@router.get(D + "/domains", **lists(DomainRow, "List a deployment's domains"))
async def list_deployment_domains(call: CallDep, paging: PagingDep, deployment_id: str) -> Response:
    def query(session: Session) -> SelectOfScalar[Domain]:
        site = site_of(call, session, deployment_id, _scope(call, READ))
        return _visible(call).where(Domain.site_id == site.id)

    return await call.listed(
        paging, query, lambda _session, rows: _listed(call, rows), time=Domain.created_at, id=Domain.id
    )


@router.post(D + "/domains", **gives(DomainRow, "Add a domain: its row says which DNS records to make", 201))
async def add_deployment_domain(call: KeyedDep, deployment_id: str, body: DomainAdd) -> Response:
    return await _adding(call, body, deployment_id)


@router.get(ONE, **gives(DomainRow, "Get a domain"))
async def get_deployment_domain(call: CallDep, deployment_id: str, domain_id: str) -> Response:
    def read(session: Session) -> Json:
        return domain_row(call, _one(call, session, domain_id, READ, deployment_id)[1])

    return call.one(await call.read(read))


@router.post(ONE + "/verify", **gives(DomainRow, "Look for a domain's records now, and lead it here where they are"))
async def verify_deployment_domain(
    call: CallDep, deployment_id: str, domain_id: str, _body: Nothing | None = None
) -> Response:
    return await _attached(call, domain_id, deployment_id, None)


@router.patch(ONE, **gives(DomainRow, "Change a domain's redirect policy"))
async def update_deployment_domain(call: CallDep, deployment_id: str, domain_id: str, body: DomainChange) -> Response:
    return await _attached(call, domain_id, deployment_id, body)


@router.delete(ONE, status_code=204, summary="Detach a domain: its name is free at once", response_class=Response)
async def delete_deployment_domain(call: CallDep, deployment_id: str, domain_id: str) -> Response:
    return await _detached(call, domain_id, deployment_id)


@router.get(FLAT, **lists(DomainRow, "List the organisation's domains"))
async def list_custom_domains(
    call: CallDep, paging: PagingDep, deployment_id: Filter = None, status: Filter = None
) -> Response:
    call.caller.require(_scope(call, READ))

    def query(_session: Session) -> SelectOfScalar[Domain]:
        found = _visible(call)
        found = found if deployment_id is None else found.where(Domain.site_id == names.site_id(deployment_id))
        return found if status is None else found.where(Domain.status == status)

    return await call.listed(
        paging, query, lambda _session, rows: _listed(call, rows), time=Domain.created_at, id=Domain.id
    )


@router.post(FLAT, **gives(DomainRow, "Add a domain to a deployment", 201))
async def create_custom_domain(call: KeyedDep, body: DomainAssign) -> Response:
    return await _adding(call, body, body.deployment_id)


@router.get(FLAT + "/{domain_id}", **gives(DomainRow, "Get a domain"))
async def get_custom_domain(call: CallDep, domain_id: str) -> Response:
    return call.one(await call.read(lambda session: domain_row(call, _one(call, session, domain_id, READ)[1])))


@router.post(FLAT + "/{domain_id}/verify", **gives(DomainRow, "Look for a domain's records now"))
async def verify_custom_domain(call: CallDep, domain_id: str, _body: Nothing | None = None) -> Response:
    return await _attached(call, domain_id, None, None)


@router.delete(FLAT + "/{domain_id}", status_code=204, summary="Detach a domain", response_class=Response)
async def delete_custom_domain(call: CallDep, domain_id: str) -> Response:
    return await _detached(call, domain_id, None)
