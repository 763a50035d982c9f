"""Environments: those of deployments, and by project the names that they have there (section 7)."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from sqlalchemy import func
from sqlmodel import Session, col, select
from starlette.responses import Response

from api.miosa import names
from api.miosa.answers import AnyRow
from api.miosa.call import CallDep, PagingDep
from api.miosa.deployments import READ, Filter
from api.miosa.document import gives, lists
from api.miosa.rows import stamp
from api.miosa.workspaces import project_of
from headway.errors import HeadwayError
from store.models import Environment, Site
from store.versions import live_build

router = APIRouter(tags=["environments"])
Json = dict[str, Any]


@router.get("/deployment-environments", **lists(AnyRow, "List the environments of deployments"))
async def list_deployment_environments(call: CallDep, paging: PagingDep, deployment_id: Filter = None) -> Response:
    call.caller.require(READ)

    def query(_session: Session) -> Any:
        found = (
            select(Environment)
            .join(Site, col(Site.id) == col(Environment.site_id))
            .where(*call.sight.sites(), *call.sight.environments(), Site.status != "deleting")
            .where(col(Environment.deleted_at).is_(None))
        )
        return found.where(Site.id == names.site_id(deployment_id)) if deployment_id is not None else found

    def show(session: Session, rows: Any) -> list[Json]:
        return [_row(session, row) for row in rows]

    return await call.listed(paging, query, show, time=Environment.created_at, id=Environment.id)


def _row(session: Session, found: Environment) -> Json:
    live = live_build(session, found.id)
    return {
        "id": found.id,
        "deployment_id": names.shown(found.site_id),
        "name": found.slug,
        "slug": found.slug,
        "kind": found.kind,
        "state": found.status,
        "active_version_id": names.shown_or_none(live[1] if live else None),
        "created_at": stamp(found.created_at),
    }


# by project


P: Final = "/projects/{project_id}"


@router.get(P + "/environments", **lists(AnyRow, "The environments that a project's deployments have, by name"))
async def list_project_environments(call: CallDep, project_id: str) -> Response:
    def work(session: Session) -> list[Json]:
        found = project_of(call, session, project_id)
        rows = session.exec(
            select(Environment.slug, Environment.kind, func.count())
            .join(Site, col(Site.id) == col(Environment.site_id))
            .where(Site.project_id == found.id, Site.status != "deleting", *call.sight.environments())
            .where(col(Environment.deleted_at).is_(None))
            .group_by(col(Environment.slug), col(Environment.kind))
        ).all()
        counts = {"production": ("production", 0)} | {slug: (kind, count) for slug, kind, count in rows}
        return [_project_row(found.id, slug, *counts[slug]) for slug in sorted(counts)]

    return call.whole(await call.read(work))


def _project_row(project_id: str, slug: str, kind: str, deployments: int) -> Json:
    return {
        "id": f"{project_id}:{slug}",
        "project_id": project_id,
        "name": slug,
        "slug": slug,
        "kind": kind,
        "is_default": slug == "production",
        "deployments": deployments,
    }


@router.get("/project-capabilities", **gives(AnyRow, "What projects can do here, beside holding deployments"))
async def project_capabilities(call: CallDep) -> Response:
    return call.one({"services_api": False, "image_source": False, "template_apply": False})


@router.get("/project-templates", **lists(AnyRow, "The templates of projects: there are none"))
async def list_project_templates(call: CallDep) -> Response:
    return call.whole([])


async def _of_deployments(call: CallDep, project_id: str) -> Response:
    await call.read(lambda session: project_of(call, session, project_id))
    message = "Environments and their variables belong to deployments here: staging is made by its first publish."
    raise HeadwayError("request.unsupported", message)


async def _of_deployments_too(call: CallDep, project_id: str, name: str) -> Response:  # noqa: ARG001
    return await _of_deployments(call, project_id)


for _path, _methods, _name in (
    ("/environments", ("POST",), "project_environment_create"),
    ("/environments/{name}", ("PATCH", "DELETE"), "project_environment"),
    ("/environments/{name}/duplicate", ("POST",), "project_environment_duplicate"),
    ("/environments/{name}/sync", ("POST",), "project_environment_sync"),
    ("/shared-variables", ("GET", "PUT"), "shared_variables"),
    ("/shared-variables/{name}", ("DELETE",), "shared_variable"),
    ("/templates/{name}/apply", ("POST",), "template_apply"),
):
    for _method in _methods:
        router.add_api_route(
            P + _path,
            _of_deployments_too if "{name}" in _path else _of_deployments,
            methods=[_method],
            status_code=409,
            responses={409: {"description": "Always: out of this platform's scope."}},
            response_model=None,
            name=f"{_name}_{_method.lower()}",
            summary="Not on this platform",
        )
