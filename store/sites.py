"""Sites: the stable production objects. Making one makes its production environment and its names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from headway.ids import new_id
from store.environments import add_environment
from store.jobs import add_job
from store.models import Environment, Job, Project, Site, Team
from store.paging import Page, fetch_page
from store.sight import Sight
from store.slugs import short_hash, slugify

Json = dict[str, Any]


def list_sites(session: Session, sight: Sight, page: Page, *, slug: str | None = None) -> tuple[Sequence[Site], bool]:
    query = select(Site).where(*sight.sites(), col(Site.deleted_at).is_(None))
    if slug is not None:
        query = query.where(Site.slug == slug)
    return fetch_page(session, query, page, time=Site.created_at, id=Site.id)


def site(session: Session, sight: Sight, site_id: str, *, lock: bool = False) -> Site:
    """Raises site.not_found for an unknown site, a deleted one and another tenant's."""
    query = select(Site).where(Site.id == site_id, col(Site.deleted_at).is_(None), *sight.sites())
    found = session.exec(query.with_for_update(key_share=True) if lock else query).first()
    if found is None:
        raise HeadwayError("site.not_found", f"There is no site {site_id}.", param="site_id")
    return found


@dataclass(frozen=True)
class SiteRequest:
    name: str
    slug: str | None
    runtime: str
    profile: str
    repository: str | None
    default_branch: str
    allow_hosts: tuple[str, ...] = ()


def accept_site(session: Session, project: Project, wanted: SiteRequest, actor: Json, domain: str) -> Job:
    """A provisioning site with its production environment and names. Raises site.slug_taken."""
    session.get(Team, project.team_id, with_for_update={"key_share": True})
    site_id = new_id("site")
    slug = wanted.slug or slugify(wanted.name) or f"site-{short_hash(site_id)}"
    check_slug(session, project.team_id, slug, param="slug" if wanted.slug else "name")
    made = Site(
        id=site_id,
        team_id=project.team_id,
        project_id=project.id,
        name=wanted.name,
        slug=slug,
        runtime=wanted.runtime,
        profile=wanted.profile,
        repository=wanted.repository,
        default_branch=wanted.default_branch,
        allow_hosts=list(wanted.allow_hosts),
    )
    session.add(made)
    session.flush()
    production = add_environment(session, made, "production", made.default_branch, domain)
    made.production_env_id = production.id
    return add_job(
        session,
        site=made,
        env_id=production.id,
        type="site.create",
        resource_type="site",
        resource_id=made.id,
        actor=actor,
        resource={"slug": made.slug, "env_id": production.id},
    )


def check_slug(session: Session, team_id: str, slug: str, *, param: str) -> None:
    living = select(Site.id).where(Site.team_id == team_id, Site.slug == slug, col(Site.deleted_at).is_(None))
    if session.exec(living).first() is not None:
        raise HeadwayError("site.slug_taken", f"This team has a site with the slug {slug}.", param=param)


def set_default_branch(session: Session, site: Site, branch: str) -> None:
    """Production follows it. The site's row must be locked.

    Raises environment.branch_taken: of what goes live no preview is brought up to date, or ended, any more.
    """
    preview = select(Environment.slug).where(
        Environment.site_id == site.id,
        Environment.kind == "preview",
        Environment.branch == branch,
        col(Environment.deleted_at).is_(None),
    )
    if branch != site.default_branch and (slug := session.exec(preview).first()) is not None:
        message = f"The environment {slug} is the preview of {branch!r}: delete it first."
        raise HeadwayError("environment.branch_taken", message, param="default_branch")
    site.default_branch = branch
    session.get_one(Environment, site.production_env_id).branch = branch


def accept_deletion(session: Session, site: Site, actor: Json) -> Job:
    """From now on the site takes no work. A second request finds the first one's job."""
    open_job = select(Job).where(Job.site_id == site.id, Job.type == "site.delete", col(Job.finished_at).is_(None))
    if (known := session.exec(open_job).first()) is not None:
        return known
    environments = session.exec(
        select(Environment).where(Environment.site_id == site.id, col(Environment.deleted_at).is_(None))
    ).all()
    before = {environment.id: environment.status for environment in environments if environment.status != "deleting"}
    for environment in environments:
        environment.status = "deleting"
    job = add_job(
        session,
        site=site,
        env_id=None,
        type="site.delete",
        resource_type="site",
        resource_id=site.id,
        actor=actor,
        resource={"slug": site.slug},
        input={"site": site.status, "environments": before},
    )
    site.status = "deleting"
    return job
