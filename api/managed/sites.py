"""Sites, their capabilities, and the catalogue of runtimes (contract section 9)."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from sqlmodel import Session
from starlette.responses import Response

from api.idempotency import Once
from api.managed.answers import CapabilitiesRow, RuntimeRow, SiteRow
from api.managed.call import Call, CallDep, KeyedDep, PagingDep
from api.managed.documents import gives, lists, starts_job
from api.managed.rows import site_row
from api.managed.schemas import Nothing, SiteCreate, SiteUpdate
from headway.errors import HeadwayError
from store import projects, sites
from store.models import Job, Site
from store.slugs import is_branch_name

router = APIRouter(tags=["sites"])

UNSUPPORTED: Final = (
    *("components.plugins", "components.themes", "components.users", "components.content"),
    *("cron", "database", "exec", "magic_link", "clone_content"),
)
# The label of a site never limits what a build may turn out to be; its profile does (contract section 9).
RUNTIMES: Final[dict[str, tuple[str, ...]]] = {
    "auto": ("auto", "static", "dynamic"),
    "static": ("auto", "static"),
    "node": ("auto", "static", "dynamic"),
    "python": ("auto", "static", "dynamic"),
    "binary": ("auto", "dynamic"),
    "wordpress": (),
}
CAPABILITIES: Final[dict[str, dict[str, Any]]] = {
    **{name: {"supported": False} for name in UNSUPPORTED},
    "build": {"supported": True, "actions": ["run", "cancel"]},
}


def capabilities_of(site: Site) -> dict[str, dict[str, Any]]:
    """`kind` of a build is the site's profile: static, dynamic, or auto for what each commit turns out to be."""
    return {**CAPABILITIES, "build": {**CAPABILITIES["build"], "kind": site.profile}}


def runtime_row(name: str, profiles: tuple[str, ...]) -> dict[str, Any]:
    return {
        "runtime": name,
        "versions": [],
        "profiles": list(profiles),
        "available": bool(profiles),
        "capabilities": CAPABILITIES if profiles else {},
    }


def check_branch(name: str, param: str) -> str:
    if not is_branch_name(name):
        raise HeadwayError("ref.invalid", f"{name!r} is no name that git takes for a branch.", param=param)
    return name


def site_to_read(call: Call, session: Session, site_id: str, scope: str = "sites:read") -> Site:
    """404 before 403."""
    site = sites.site(session, call.sight, site_id)
    call.caller.require(scope)
    return site


def site_to_change(call: Call, session: Session, site_id: str, scope: str = "sites:write") -> Site:
    site = sites.site(session, call.sight, site_id, lock=True)
    call.caller.require_change(scope, site_id=site.id)
    return site


@router.post("/sites", **starts_job("Make a site with its production environment"))
async def create_site(call: KeyedDep, body: SiteCreate) -> Response:
    wanted = _wanted(call, body)

    def work(session: Session, once: Once) -> Job:
        if body.project_id is not None:
            project = projects.project(session, call.sight, body.project_id)
        else:
            project = projects.default_project(session, call.sight, call.caller.team_id)
        call.caller.require_change("sites:write")
        once.claim(session)
        return sites.accept_site(session, project, wanted, call.caller.actor, call.parts.addresses.domain)

    return await call.start(body, work)


def _wanted(call: Call, body: SiteCreate) -> sites.SiteRequest:
    """Raises environment.capability_unsupported, repository.invalid, repository.not_allowed or ref.invalid."""
    if body.runtime == "wordpress" or body.profile in ("bedrock", "vanilla") or body.php_version is not None:
        raise HeadwayError(
            "environment.capability_unsupported", "This platform runs no PHP: it has no WordPress runtime."
        )
    policy = call.parts.repositories
    return sites.SiteRequest(
        name=body.name.strip(),
        slug=body.slug,
        runtime=body.runtime,
        profile=body.profile,
        repository=policy.normal(body.repository) if body.repository is not None else None,
        default_branch=check_branch(body.default_branch, "default_branch"),
    )


@router.get("/sites", **lists(SiteRow, "List sites"))
async def list_sites(
    call: CallDep, paging: PagingDep, slug: Annotated[str | None, Query(max_length=63)] = None
) -> Response:
    call.caller.require("sites:read")
    addresses = call.parts.addresses
    return await call.page(
        paging,
        lambda session, page: sites.list_sites(session, call.sight, page, slug=slug),
        lambda site: site_row(site, addresses),
    )


@router.get("/sites/{site_id}", **gives(SiteRow, "Get a site"))
async def get_site(call: CallDep, site_id: str) -> Response:
    site = await call.read(lambda session: site_to_read(call, session, site_id))
    return call.one(site_row(site, call.parts.addresses))


@router.patch("/sites/{site_id}", **gives(SiteRow, "Change a site's name, project or default branch"))
async def update_site(call: CallDep, site_id: str, body: SiteUpdate) -> Response:
    def work(session: Session) -> Site:
        site = site_to_change(call, session, site_id)
        if body.project_id is not None:
            site.project_id = _project_of_team(call, session, site, body.project_id)
        if body.name is not None:
            site.name = body.name.strip()
        if body.profile is not None:
            site.profile = body.profile
        if body.default_branch is not None:
            sites.set_default_branch(session, site, check_branch(body.default_branch, "default_branch"))
        return site

    return call.one(site_row(await call.write(work), call.parts.addresses))


def _project_of_team(call: Call, session: Session, site: Site, project_id: str) -> str:
    project = projects.project(session, call.sight, project_id)
    if project.team_id != site.team_id:
        raise HeadwayError("project.not_found", "That project is another team's.", param="project_id")
    return project.id


@router.delete("/sites/{site_id}", **starts_job("Delete a site with all of its environments"))
async def delete_site(call: CallDep, site_id: str, body: Nothing | None = None) -> Response:
    def work(session: Session, once: Once) -> Job:
        site = site_to_change(call, session, site_id)
        once.claim(session)
        return sites.accept_deletion(session, site, call.caller.actor)

    return await call.start(body, work)


@router.get("/sites/{site_id}/capabilities", **gives(CapabilitiesRow, "What a site's runtime can do"))
async def site_capabilities(call: CallDep, site_id: str) -> Response:
    site = await call.read(lambda session: site_to_read(call, session, site_id))
    return call.one({"runtime": site.runtime, "runtime_version": None, "capabilities": capabilities_of(site)})


@router.get("/runtimes", **lists(RuntimeRow, "The catalogue of runtimes"))
async def list_runtimes(call: CallDep, paging: PagingDep) -> Response:
    return call.numbered(paging, list(RUNTIMES.items()), lambda row: runtime_row(*row))
