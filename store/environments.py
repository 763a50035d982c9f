"""Environments: production with the site, one staging, one preview per branch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import bindparam, update
from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from headway.ids import new_id
from store.events import stamp
from store.hostnames import addresses_of, claim_hostnames, hostnames_of
from store.jobs import add_job
from store.locks import inherit_lock
from store.models import Environment, Hostname, Job, Site, utcnow
from store.paging import Page, fetch_page
from store.sight import Sight
from store.slugs import SLUG, branch_slug, fitted, short_hash

Json = dict[str, Any]
IDLE: Final = timedelta(hours=72)
KINDS: Final = ("production", "staging", "preview")
# On the path of nearly every request: built once.
_ENVIRONMENT: Final = (
    select(Site, Environment)
    .join(Environment, col(Environment.site_id) == col(Site.id))
    .where(
        col(Site.id) == bindparam("site"),
        col(Environment.id) == bindparam("environment"),
        col(Site.deleted_at).is_(None),
        col(Environment.deleted_at).is_(None),
    )
)
_NEXT: Final = (
    update(Environment)
    .where(col(Environment.id) == bindparam("environment"))
    .values(accept_seq=col(Environment.accept_seq) + 1)
    .returning(col(Environment.accept_seq))
    .execution_options(synchronize_session=False)
)
_LOCKED: Final = _ENVIRONMENT.with_for_update(of=Environment, key_share=True)


def environment(
    session: Session, sight: Sight, site_id: str, env_id: str, *, lock: bool = False
) -> tuple[Site, Environment]:
    """Raises site.not_found or environment.not_found: unknown, gone, or another tenant's."""
    query = _LOCKED if lock else _ENVIRONMENT
    if seen := [*sight.sites(), *sight.environments()]:
        query = query.where(*seen)
    found = session.exec(query, params={"site": site_id, "environment": env_id}).first()
    if found is not None:
        return found
    known = select(Site.id).where(Site.id == site_id, col(Site.deleted_at).is_(None), *sight.sites())
    if session.exec(known).first() is None:
        raise HeadwayError("site.not_found", f"There is no site {site_id}.", param="site_id")
    raise HeadwayError("environment.not_found", f"There is no environment {env_id}.", param="env_id")


def list_environments(
    session: Session, sight: Sight, site_id: str, page: Page, *, branch: str | None, kind: str | None, slug: str | None
) -> tuple[Sequence[Environment], bool]:
    query = select(Environment).where(
        Environment.site_id == site_id, col(Environment.deleted_at).is_(None), *sight.environments()
    )
    for column, wanted in ((Environment.branch, branch), (Environment.kind, kind), (Environment.slug, slug)):
        if wanted is not None:
            query = query.where(col(column) == wanted)
    return fetch_page(session, query, page, time=Environment.created_at, id=Environment.id)


def target(session: Session, sight: Sight, site: Site, name: str, *, param: str) -> Environment:
    """An environment by id, slug or kind. `preview` is no name: there may be many of them."""
    query = select(Environment).where(
        Environment.site_id == site.id, col(Environment.deleted_at).is_(None), *sight.environments()
    )
    for column in (Environment.id, Environment.slug):
        if (found := session.exec(query.where(col(column) == name)).first()) is not None:
            return found
    if name == "preview":
        message = "A site may have many previews: name one by its id or slug."
        raise HeadwayError("request.invalid_parameter", message, param=param)
    wanted = "production" if name == "live" else name
    found = session.exec(query.where(Environment.kind == wanted)).first() if wanted in KINDS else None
    if found is None:
        raise HeadwayError("environment.not_found", f"This site has no environment {name!r}.", param=param)
    return found


def require_ready(environment: Environment) -> None:
    """Raises environment.suspended or environment.not_active: it takes no new work."""
    if environment.status == "suspended":
        raise HeadwayError("environment.suspended", f"The environment {environment.slug} is suspended.")
    if environment.status != "active":
        raise HeadwayError("environment.not_active", f"The environment {environment.slug} is {environment.status}.")


def next_acceptance(session: Session, environment: Environment) -> int:
    """The next number in the order of acceptance, taken in this transaction (invariant 3)."""
    return int(session.execute(_NEXT, {"environment": environment.id}).scalar_one())


def add_environment(
    session: Session,
    site: Site,
    kind: str,
    branch: str,
    domain: str,
    *,
    ephemeral: bool = False,
    idle: timedelta | None = None,
) -> Environment:
    """A provisioning environment with a slug of its own and its host names."""
    env_id = new_id("env")
    slug = kind if kind != "preview" else _free_slug(session, site, branch)
    made = Environment(
        id=env_id,
        site_id=site.id,
        kind=kind,
        slug=slug,
        branch=branch,
        ephemeral=ephemeral,
        expires_at=utcnow() + (idle or IDLE) if ephemeral else None,
        idle_hours=int(idle.total_seconds() // 3600) if ephemeral and idle else None,
    )
    session.add(made)
    session.flush()
    claim_hostnames(session, site, made, domain)
    inherit_lock(session, site, made)
    return made


def _free_slug(session: Session, site: Site, branch: str) -> str:
    slug = branch_slug(branch)
    taken = select(Environment.id).where(
        Environment.site_id == site.id, Environment.slug == slug, col(Environment.deleted_at).is_(None)
    )
    if slug in KINDS or slug == "live" or session.exec(taken).first() is not None:
        return fitted(slug, short_hash(site.id, branch), limit=SLUG)
    return slug


def accept_environment(
    session: Session,
    site: Site,
    kind: str,
    branch: str,
    actor: Json,
    domain: str,
    *,
    ephemeral: bool,
    idle: timedelta | None = None,
    most_previews: int | None = None,
) -> Job:
    """Raises environment.kind_singleton, .branch_taken and .too_many. The site's row must be locked."""
    if site.status not in ("active", "provisioning"):
        raise HeadwayError("environment.not_active", f"The site {site.slug} is {site.status}.")
    living = select(Environment.id).where(Environment.site_id == site.id, col(Environment.deleted_at).is_(None))
    if kind == "staging" and session.exec(living.where(Environment.kind == kind)).first() is not None:
        raise HeadwayError("environment.kind_singleton", "This site has a staging environment already.", param="kind")
    if kind == "preview" and session.exec(living.where(Environment.branch == branch)).first() is not None:
        raise HeadwayError(
            "environment.branch_taken", f"An environment of this site has the branch {branch!r}.", param="branch"
        )
    if kind == "preview" and most_previews is not None:
        count = len(session.exec(living.where(Environment.kind == kind)).all())
        if count >= most_previews:
            raise HeadwayError("environment.too_many", f"This site has {count} previews: it may have {most_previews}.")
    made = add_environment(session, site, kind, branch, domain, ephemeral=ephemeral, idle=idle)
    return _making(session, site, made, actor)


def make_again(session: Session, site: Site, environment: Environment, actor: Json) -> Job | None:
    """A job for an environment that was never made because the first one failed; None where nothing is amiss."""
    if environment.status != "provisioning" or environment.kind == "production":
        return None
    making = select(Job.id).where(
        Job.env_id == environment.id, Job.type == "environment.create", col(Job.finished_at).is_(None)
    )
    return None if session.exec(making).first() is not None else _making(session, site, environment, actor)


def _making(session: Session, site: Site, made: Environment, actor: Json) -> Job:
    return add_job(
        session,
        site=site,
        env_id=made.id,
        type="environment.create",
        resource_type="environment",
        resource_id=made.id,
        actor=actor,
        resource={"site_id": site.id, "kind": made.kind, "slug": made.slug, "branch": made.branch},
    )


def made_facts(session: Session, env_id: str, site_url: Callable[[str], str]) -> Json:
    """The environment as it begins, for the result of the job that made it."""
    environment = session.get_one(Environment, env_id)
    site, names = session.get_one(Site, environment.site_id), hostnames_of(session, [env_id])[env_id]
    return facts(environment, site, names, site_url)


def facts(environment: Environment, site: Site, names: Sequence[Hostname], site_url: Callable[[str], str]) -> Json:
    """What an environment is, and where. `url` is the address under its primary name, `preview_url` the stable one of a
    preview's branch; `site_url` makes an address of a name.
    """
    primary, stable = addresses_of(site, environment, names)
    return {
        "id": environment.id,
        "site_id": environment.site_id,
        "kind": environment.kind,
        "slug": environment.slug,
        "branch": environment.branch,
        "status": environment.status,
        "url": site_url(primary) if primary else None,
        "preview_url": site_url(stable) if stable else None,
        "hostnames": [name.name for name in names],
        "ephemeral": environment.ephemeral,
        "expires_at": stamp(environment.expires_at),
        "created_at": stamp(environment.created_at),
    }


def gone(session: Session, env_ids: Collection[str]) -> set[str]:
    """Which of these environments are deleted, or were never there."""
    there = select(Environment.id).where(col(Environment.id).in_(env_ids), col(Environment.deleted_at).is_(None))
    return set(env_ids) - set(session.exec(there).all())


def accept_deletion(session: Session, site: Site, environment: Environment, actor: Json) -> Job:
    """Raises environment.protected for production. A second request finds the first one's job."""
    if environment.kind == "production":
        raise HeadwayError("environment.protected", "Production lives as long as its site.")
    open_job = select(Job).where(
        Job.env_id == environment.id, Job.type == "environment.delete", col(Job.finished_at).is_(None)
    )
    if (known := session.exec(open_job).first()) is not None:
        return known
    before = environment.status
    environment.status = "deleting"
    return add_job(
        session,
        site=site,
        env_id=environment.id,
        type="environment.delete",
        resource_type="environment",
        resource_id=environment.id,
        actor=actor,
        resource={"site_id": site.id, "kind": environment.kind, "slug": environment.slug},
        input={"environments": {environment.id: before}},
    )


def expiry(environment: Environment) -> datetime:
    """When an ephemeral environment ends that is used now."""
    return utcnow() + (timedelta(hours=environment.idle_hours) if environment.idle_hours else IDLE)


def expired(session: Session, *, limit: int = 20) -> Sequence[tuple[Site, Environment]]:
    """Ephemeral environments whose time is over and which nobody has ended yet, or uses or renews at this moment."""
    query = (
        select(Site, Environment)
        .join(Environment, col(Environment.site_id) == col(Site.id))
        .where(
            Environment.ephemeral,
            col(Environment.expires_at) < utcnow(),
            col(Environment.status).in_(("active", "suspended")),
            col(Environment.deleted_at).is_(None),
            col(Site.deleted_at).is_(None),
        )
    )
    return session.exec(query.limit(limit).with_for_update(of=Environment, skip_locked=True)).all()


def renew(session: Session, environment: Environment) -> Environment:
    """An ephemeral environment lives on from now: 72 hours, or what its kind of preview is given."""
    if not environment.ephemeral:
        raise HeadwayError("environment.not_active", "Only an ephemeral environment ends by itself.")
    if environment.status == "deleting":
        raise HeadwayError("environment.not_active", f"The environment {environment.slug} is being deleted.")
    environment.expires_at = expiry(environment)
    session.add(environment)
    session.flush()
    return environment
