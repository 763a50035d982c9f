"""Domains: asked for, proven, led to an environment, taken away. A name becomes somebody's with its proof."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, func
from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from headway.ids import new_id
from store.events import stamp, tell
from store.hostnames import insert_new
from store.jobs import add_job
from store.models import Environment, Hostname, Job, Site, utcnow
from store.models_domains import Domain
from store.outcomes import end_job
from store.paging import Page, fetch_page

Json = dict[str, Any]
MAX_DOMAINS: Final = 50
POLICIES: Final = ("none", "apex_to_www", "www_to_apex")
_NAME: Final = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_ALPHABET: Final = "abcdefghijkmnpqrstuvwxyz23456789"


@dataclass(frozen=True)
class DomainRequest:
    hostname: str
    redirect_to_primary: bool = False
    redirect_policy: str = "none"


@dataclass(frozen=True)
class Looked:
    """What a look at the DNS saw: `seen` are `{type, name, value}`, `why` what is missing where it is not proven."""

    proven: bool
    points_here: bool
    seen: list[Json]
    why: str = ""


def check_hostname(given: str, own: Sequence[str], *, param: str = "hostname") -> str:
    """In its one form: lower case, no trailing dot. `own` are the platform's domains.

    Raises domain.invalid, and domain.reserved for the platform's own names.
    """
    name = given.strip().lower().removesuffix(".")
    if not _NAME.fullmatch(name) or len(name) > 240:
        message = f"{given[:80]!r} is no domain: letters, digits and hyphens, as `www.example.com` (xn--… for others)."
        raise HeadwayError("domain.invalid", message, param=param)
    if any(name == base or name.endswith(f".{base}") for base in own):
        raise HeadwayError("domain.reserved", f"{name} is one of the platform's own names.", param=param)
    return name


def add_domain(session: Session, site: Site, environment: Environment, wanted: DomainRequest, actor: Json) -> Domain:
    """Asked for, not proven. Raises environment.not_active, domain.exists, domain.taken and quota.exceeded."""
    if environment.status in ("deleting", "gone"):
        raise HeadwayError("environment.not_active", f"The environment {environment.slug} is {environment.status}.")
    living = select(Domain).where(Domain.env_id == environment.id, col(Domain.deleted_at).is_(None))
    if session.exec(living.where(Domain.hostname == wanted.hostname)).first() is not None:
        raise HeadwayError("domain.exists", f"{wanted.hostname} is a domain of this environment already.")
    _refuse_taken(session, wanted.hostname, environment.id)
    if session.execute(select(func.count()).select_from(living.subquery())).scalar_one() >= MAX_DOMAINS:
        raise HeadwayError("quota.exceeded", f"An environment has at most {MAX_DOMAINS} domains.")
    made = Domain(
        id=new_id("dom"),
        team_id=site.team_id,
        site_id=site.id,
        env_id=environment.id,
        hostname=wanted.hostname,
        token="".join(secrets.choice(_ALPHABET) for _ in range(24)),
        redirect_to_primary=wanted.redirect_to_primary,
        redirect_policy=wanted.redirect_policy,
        actor=actor,
    )
    session.add(made)
    session.flush()
    return made


def _refuse_taken(session: Session, hostname: str, env_id: str) -> None:
    known = session.get(Hostname, hostname)
    if known is not None and known.env_id != env_id:
        raise HeadwayError("domain.taken", f"{hostname} leads to another environment.", param="hostname")


def accept_attach(session: Session, site: Site, domain: Domain, actor: Json, *, patience: float) -> Job:
    """Look for the proof for so many seconds (0: once), then lead the name here. An open look is joined."""
    if (known := open_job(session, domain.id)) is not None:
        return known
    return _accept(session, site, domain, "domain.attach", actor, {"patience": patience})


def accept_detach(session: Session, site: Site, domain: Domain, actor: Json) -> Job:
    """The name is free from now on; hosts hear of it by the job."""
    end_domain(session, domain)
    return _accept(session, site, domain, "domain.detach", actor, None)


def _accept(session: Session, site: Site, domain: Domain, type: str, actor: Json, input: Json | None) -> Job:
    return add_job(
        session,
        site=site,
        env_id=domain.env_id,
        type=type,
        resource_type="domain",
        resource_id=domain.id,
        actor=actor,
        resource={"hostname": domain.hostname, "site_id": site.id, "env_id": domain.env_id},
        input=input,
    )


def open_job(session: Session, domain_id: str) -> Job | None:
    """The attach that is under way."""
    wanted = (Job.resource_id == domain_id, Job.type == "domain.attach", col(Job.finished_at).is_(None))
    return session.exec(select(Job).where(*wanted)).first()


def end_domain(session: Session, domain: Domain) -> None:
    """Its row stays for the record; its name is free, and the primary one may be another."""
    known = session.get(Hostname, domain.hostname)
    if known is not None and known.env_id == domain.env_id and domain.status in ("verified", "active"):
        session.delete(known)
    domain.status, domain.deleted_at = "removed", utcnow()
    session.add(domain)
    session.flush()
    choose_primary(session, domain.env_id)


def living(session: Session, domain_id: str) -> Domain:
    """For the work on it. Raises domain.not_found where it has been taken away meanwhile."""
    found = session.get(Domain, domain_id, with_for_update=True)
    if found is None or found.deleted_at is not None:
        raise HeadwayError("domain.not_found", f"The domain {domain_id} has been detached.")
    return found


def note_look(session: Session, domain_id: str, looked: Looked) -> bool:
    """Keep what was seen. Proven: the name is this environment's from now on. Raises domain.not_found, domain.taken."""
    domain = living(session, domain_id)
    domain.checked_at, domain.points_here = utcnow(), looked.points_here
    domain.found = {"records": looked.seen, "why": looked.why or None}
    if looked.proven:
        _claim(session, domain)
        domain.verified_at = domain.verified_at or utcnow()
        if domain.status != "active":
            domain.status = "verified"
        domain.error = None
        session.flush()
        choose_primary(session, domain.env_id)
    return looked.proven


def _claim(session: Session, domain: Domain) -> None:
    """Waits for a concurrent claim of the same name."""
    row = {"name": domain.hostname, "env_id": domain.env_id, "is_primary": False, "created_at": utcnow()}
    if not insert_new(session, row):
        _refuse_taken(session, domain.hostname, domain.env_id)


def activate(session: Session, domain_id: str, job: Job, *, certified: bool, away: Sequence[str] = ()) -> None:
    """Every host but those that are `away` leads the name here: it is attached, and the job has succeeded."""
    domain = living(session, domain_id)
    first = domain.status != "active"
    domain.status = "active"
    if certified and domain.tls_issued_at is None:
        domain.tls_issued_at = utcnow()
        _tell(session, domain, "cert.renewed", "certificate", {"issued_at": stamp(domain.tls_issued_at)})
    result: Json = {"domain_id": domain.id, "hostname": domain.hostname, "env_id": domain.env_id}
    result |= {"certificate": "issued" if certified else None} | ({"hosts_away": list(away)} if away else {})
    end_job(session, job, "succeeded", result=result)
    if first:
        tell_domain(session, domain, "attached")


def give_up(session: Session, domain_id: str, error: Json, *, final: bool) -> None:
    """What is not verified stays so; after a long look it has failed, after a single one it is pending still."""
    domain = session.get(Domain, domain_id, with_for_update=True)
    if domain is not None and domain.deleted_at is None and domain.status in ("pending", "failed"):
        domain.status, domain.error = "failed" if final else "pending", error


def tell_domain(session: Session, domain: Domain, what: str) -> None:
    """`domain.attached` or `domain.detached`."""
    facts = {"status": domain.status, "verified_at": stamp(domain.verified_at)}
    _tell(session, domain, f"domain.{what}", "domain", facts)


def _tell(session: Session, domain: Domain, type: str, noun: str, facts: Json) -> None:
    of = {"id": domain.id, "hostname": domain.hostname, "site_id": domain.site_id, "env_id": domain.env_id}
    tell(
        session,
        type,
        {noun: {**of, **facts}},
        team_id=domain.team_id,
        site_id=domain.site_id,
        env_id=domain.env_id,
    )


def choose_primary(session: Session, env_id: str) -> None:
    """The name under which an environment shows itself: its oldest domain that leads here and redirects nowhere; else
    the platform's own, the shortest of them."""
    names = session.exec(select(Hostname).where(Hostname.env_id == env_id)).all()
    domains = {one.hostname: one for one in _attached(session, env_id)}
    own = [one for one in names if one.name not in domains]
    serving = [
        one for one in names if (domain := domains.get(one.name)) and domain.points_here and not _wants_redirect(domain)
    ]
    first = min(serving, key=lambda one: (one.created_at, one.name), default=None)
    chosen = first or min(own, key=lambda one: (len(one.name), one.name), default=None)
    for one in names:
        one.is_primary = one is chosen
        session.add(one)


def _attached(session: Session, env_id: str) -> Sequence[Domain]:
    wanted = (Domain.env_id == env_id, col(Domain.deleted_at).is_(None), col(Domain.status).in_(("verified", "active")))
    return session.exec(select(Domain).where(*wanted)).all()


def _wants_redirect(domain: Domain) -> bool:
    return domain.redirect_to_primary or sibling(domain) is not None


def sibling(domain: Domain) -> str | None:
    """Where the redirect policy leads; None where it says nothing about this name."""
    bare = domain.hostname.removeprefix("www.")
    if domain.redirect_policy == "apex_to_www" and domain.hostname == bare:
        return f"www.{bare}"
    if domain.redirect_policy == "www_to_apex" and domain.hostname != bare:
        return bare
    return None


def redirects_of(session: Session, env_id: str) -> dict[str, str]:
    """Names that lead on to another name of the same environment: a policy to a name that is not attached waits."""
    names = {one.name: one for one in session.exec(select(Hostname).where(Hostname.env_id == env_id)).all()}
    primary = next((one.name for one in names.values() if one.is_primary), None)
    found = {}
    for domain in _attached(session, env_id):
        target = sibling(domain)
        if target not in names:
            target = primary if domain.redirect_to_primary else None
        if target is not None and target != domain.hostname:
            found[domain.hostname] = target
    # A chain would cost a visitor a second trip; a circle would never end.
    return {name: target for name, target in found.items() if target not in found}


def domain(
    session: Session, id: str, *, env_id: str | None = None, site_id: str | None = None, lock: bool = False
) -> Domain:
    """Raises domain.not_found."""
    query = select(Domain).where(Domain.id == id, col(Domain.deleted_at).is_(None))
    query = query if env_id is None else query.where(Domain.env_id == env_id)
    query = query if site_id is None else query.where(Domain.site_id == site_id)
    found = session.exec(query.with_for_update() if lock else query).one_or_none()
    if found is None:
        raise HeadwayError("domain.not_found", f"There is no domain {id}.", param="domain_id")
    return found


def list_domains(session: Session, page: Page, *conditions: ColumnElement[bool]) -> tuple[Sequence[Domain], bool]:
    query = select(Domain).where(col(Domain.deleted_at).is_(None), *conditions)
    return fetch_page(session, query, page, time=Domain.created_at, id=Domain.id)


def is_served(session: Session, hostname: str) -> bool:
    """Whether a certificate may be asked for: the name leads to an environment."""
    return session.get(Hostname, hostname) is not None
