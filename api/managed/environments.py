"""Environments (contract section 10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from sqlmodel import Session
from starlette.responses import Response

from api.idempotency import Once
from api.managed.answers import DriftRow, EnvironmentRow
from api.managed.call import Call, CallDep, KeyedDep, PagingDep
from api.managed.documents import gives, lists, starts_job
from api.managed.machines import operator_only
from api.managed.rows import drift_row, environment_row
from api.managed.schemas import EnvironmentCreate, EnvironmentUpdate, Nothing, RunCreate, Scale
from api.managed.sites import check_branch, site_to_change, site_to_read
from api.starting import ring
from store import commands, drifts, environments, fleet, lifecycle
from store.approvals import held_in, set_pin
from store.hostnames import hostnames_of
from store.labels import bell_of
from store.models import Environment, Job, Site
from store.models_lifecycle import Drift
from store.paging import Page
from temporal.messages import Ahead

router = APIRouter(tags=["environments"])
Json = dict[str, Any]
E = "/sites/{site_id}/environments/{env_id}"


def env_to_read(
    call: Call, session: Session, site_id: str, env_id: str, scope: str = "environments:read"
) -> tuple[Site, Environment]:
    """404 before 403."""
    site, environment = environments.environment(session, call.sight, site_id, env_id)
    call.caller.require(scope)
    return site, environment


def env_to_change(
    call: Call, session: Session, site_id: str, env_id: str, scope: str = "environments:write"
) -> tuple[Site, Environment]:
    site, environment = environments.environment(session, call.sight, site_id, env_id, lock=True)
    call.caller.require_change(scope, site_id=site.id, env_id=environment.id)
    return site, environment


def shown(call: Call, session: Session, site: Site, rows: Sequence[Environment]) -> list[Json]:
    names = hostnames_of(session, [row.id for row in rows])
    return [environment_row(row, site, names[row.id], call.parts.addresses) for row in rows]


@router.post("/sites/{site_id}/environments", **starts_job("Make the staging environment, or a preview of a branch"))
async def create_environment(call: KeyedDep, site_id: str, body: EnvironmentCreate) -> Response:
    branch = check_branch(body.branch, "branch")

    def work(session: Session, once: Once) -> Job:
        site = site_to_change(call, session, site_id, "environments:write")
        once.claim(session)
        actor, domain, most = call.caller.actor, call.parts.addresses.domain, call.parts.previews.most
        return environments.accept_environment(
            session, site, body.kind, branch, actor, domain, ephemeral=body.ephemeral, most_previews=most
        )

    return await call.start(body, work)


@router.get("/sites/{site_id}/environments", **lists(EnvironmentRow, "List a site's environments"))
async def list_environments(
    call: CallDep,
    paging: PagingDep,
    site_id: str,
    branch: Annotated[str | None, Query(max_length=250)] = None,
    kind: Literal["production", "staging", "preview"] | None = None,
    slug: Annotated[str | None, Query(max_length=63)] = None,
) -> Response:
    def fetch(session: Session, page: Page) -> tuple[Sequence[Any], bool]:
        site = site_to_read(call, session, site_id, "environments:read")
        rows, more = environments.list_environments(
            session, call.sight, site.id, page, branch=branch, kind=kind, slug=slug
        )
        return list(zip(rows, shown(call, session, site, rows), strict=True)), more

    return await call.page(paging, fetch, lambda row: row[1], lambda row: (row[0].created_at, row[0].id))


@router.get(E, **gives(EnvironmentRow, "Get an environment"))
async def get_environment(call: CallDep, site_id: str, env_id: str) -> Response:
    def work(session: Session) -> Json:
        site, environment = env_to_read(call, session, site_id, env_id)
        return shown(call, session, site, [environment])[0]

    return call.one(await call.read(work))


@router.delete(E, **starts_job("Delete an environment; production goes with its site alone"))
async def delete_environment(call: CallDep, site_id: str, env_id: str, body: Nothing | None = None) -> Response:
    def work(session: Session, once: Once) -> Job:
        site, environment = env_to_change(call, session, site_id, env_id)
        once.claim(session)
        return environments.accept_deletion(session, site, environment, call.caller.actor)

    return await call.start(body, work)


@router.patch(E, **gives(EnvironmentRow, "Change an environment's settings"))
async def update_environment(call: CallDep, site_id: str, env_id: str, body: EnvironmentUpdate) -> Response:
    def work(session: Session) -> tuple[Json, list[Ahead]]:
        site, environment = env_to_change(call, session, site_id, env_id)
        _change(call, session, environment, body)
        freed = held_in(session, site.id, environment.id) if body.pinned is False else ()
        return shown(call, session, site, [environment])[0], [bell_of(session, one) for one in freed]

    row, bells = await call.write(work)
    await ring(call.parts.starts, bells)
    return call.one(row)


def _change(call: Call, session: Session, environment: Environment, body: EnvironmentUpdate) -> None:
    """What the body names. Raises role.insufficient: the hosts are the operator's to choose."""
    if body.bake_seconds is not None:
        environment.bake_seconds = body.bake_seconds
    if body.away is not None:
        environment.away = body.away
    if body.host_labels is not None:
        operator_only(call)
        fleet.choose_hosts(session, environment, body.host_labels)
    if body.pinned is not None:
        set_pin(environment, call.caller.actor if body.pinned else None, body.pin_reason or "")


async def _act(
    call: Call, site_id: str, env_id: str, kind: str, body: Nothing | Scale | None, *, instances: int | None = None
) -> Response:
    def work(session: Session, once: Once) -> Job:
        site, environment = env_to_change(call, session, site_id, env_id)
        once.claim(session)
        return lifecycle.accept_action(session, site, environment, kind, call.caller.actor, instances=instances)

    return await call.start(body, work)


@router.post(E + "/suspend", **starts_job("Serve a page that says so, stop what runs, and refuse deployments"))
async def suspend_environment(call: KeyedDep, site_id: str, env_id: str, body: Nothing | None = None) -> Response:
    return await _act(call, site_id, env_id, "suspend", body)


@router.post(E + "/resume", **starts_job("Serve again what a suspended environment served"))
async def resume_environment(call: KeyedDep, site_id: str, env_id: str, body: Nothing | None = None) -> Response:
    return await _act(call, site_id, env_id, "resume", body)


@router.post(E + "/restart", **starts_job("Replace the instances by fresh ones, with today's configuration"))
async def restart_environment(call: KeyedDep, site_id: str, env_id: str, body: Nothing | None = None) -> Response:
    return await _act(call, site_id, env_id, "restart", body)


@router.post(E + "/scale", **starts_job("Run this many instances from now on"))
async def scale_environment(call: KeyedDep, site_id: str, env_id: str, body: Scale) -> Response:
    return await _act(call, site_id, env_id, "scale", body, instances=body.instances)


@router.post(E + "/run", **starts_job("Run a command once, with the release and configuration that are served"))
async def run_command(call: KeyedDep, site_id: str, env_id: str, body: RunCreate) -> Response:
    def work(session: Session, once: Once) -> Job:
        site, environment = env_to_change(call, session, site_id, env_id, "deployments:write")
        once.claim(session)
        given = None
        if body.input_id is not None:
            given = (body.input_id, call.parts.inputs.require_whole(environment.id, body.input_id))
        return commands.accept_command(session, site, environment, body.command, body.timeout, call.caller.actor, given)

    # A request that is made again brings its input again, under another id.
    same = RunCreate.model_validate(body.model_dump(exclude_unset=True, exclude={"input_id"}))
    return await call.start(same, work)


@router.post(E + "/renew", **gives(EnvironmentRow, "Let an ephemeral environment live on from now"))
async def renew_environment(call: KeyedDep, site_id: str, env_id: str, _body: Nothing | None = None) -> Response:
    def work(session: Session) -> Json:
        site, environment = env_to_change(call, session, site_id, env_id)
        environments.renew(session, environment)
        return shown(call, session, site, [environment])[0]

    return call.one(await call.write(work))


@router.get(E + "/drifts", **lists(DriftRow, "What hosts found otherwise than they had left it, and put right"))
async def list_drifts(call: CallDep, paging: PagingDep, site_id: str, env_id: str) -> Response:
    def fetch(session: Session, page: Page) -> tuple[Sequence[Drift], bool]:
        _, environment = env_to_read(call, session, site_id, env_id)
        return drifts.list_drifts(session, environment.id, page)

    return await call.page(paging, fetch, drift_row)
