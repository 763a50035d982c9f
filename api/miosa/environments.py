"""Environments of deployments, their instances and their variables, as far as there are any (section 7)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlmodel import Session, col, select
from starlette.responses import Response

from api.miosa import names
from api.miosa.call import CallDep, KeyedDep, PagingDep
from api.miosa.deployments import READ, D, Filter, site_of
from api.miosa.document import gives, lists
from api.miosa.rows import stamp
from api.miosa.schemas import AnyRow
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
            .where(*call.sight.sites(), *call.sight.environments(), col(Environment.deleted_at).is_(None))
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


@router.get(D + "/runtime-instances", **lists(AnyRow, "List what runs of a deployment; files need no instance"))
async def list_instances(call: CallDep, deployment_id: str) -> Response:
    await call.read(lambda session: site_of(call, session, deployment_id))
    return call.whole([])


@router.get(D + "/runtime-instances/{instance_id}", **gives(AnyRow, "Get an instance"))
async def get_instance(call: CallDep, deployment_id: str, instance_id: str) -> Response:
    await call.read(lambda session: site_of(call, session, deployment_id))
    raise HeadwayError("instance.not_found", f"There is no instance {instance_id}.")


@router.get(D + "/runtime-instances/{instance_id}/logs", **gives(AnyRow, "An instance's log"))
async def instance_logs(
    call: CallDep, deployment_id: str, instance_id: str, _lines: Annotated[int, Query(alias="lines", ge=1)] = 100
) -> Response:
    return await get_instance(call, deployment_id, instance_id)


@router.get(D + "/env", **lists(AnyRow, "List a deployment's variables, never their values"))
async def list_variables(call: CallDep, deployment_id: str) -> Response:
    await call.read(lambda session: site_of(call, session, deployment_id))
    return call.whole([])


async def _no_variables(call: KeyedDep, deployment_id: str) -> Response:
    await call.read(lambda session: site_of(call, session, deployment_id))
    raise HeadwayError("request.unsupported", "Files that are served read no variables.")


router.add_api_route(
    D + "/env",
    _no_variables,
    methods=["POST"],
    status_code=409,
    responses={409: {"description": "Always: what is served has no variables."}},
    response_model=None,
    name="set_variables",
    summary="Not on this platform",
)
