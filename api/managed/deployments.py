"""Deployments, promote, rollback and releases (contract section 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path
from sqlmodel import Session
from starlette.responses import Response

from api.idempotency import Once
from api.managed.answers import DeploymentRow, ReleaseRow
from api.managed.call import Call, CallDep, KeyedDep, PagingDep
from api.managed.documents import gives, lists, starts_job
from api.managed.environments import E, env_to_change, env_to_read
from api.managed.rows import config_row, deployment_row, release_row
from api.managed.schemas import DeploymentCreate, Promote, Rollback, RolloutStatus, SiteDeploymentCreate
from headway.errors import HeadwayError
from store import artifacts, builds, environments, joining, releases, rollouts, sites
from store.config_sets import configurations
from store.models import Environment, Job, Release, Rollout, Site
from store.paging import Page

router = APIRouter(tags=["deployments"])
Json = dict[str, Any]
READ, WRITE = "deployments:read", "deployments:write"
# In place of a deployment's id. Found out under the key: what is live is another one when the request comes again.
CURRENT: Final = "current"
RolledBack = Annotated[str, Path(description="A deployment's id; `current`: the one that is live.")]


def shown(session: Session, rows: Sequence[Release]) -> list[Json]:
    """Releases, each with the names and versions of its configuration."""
    replaced = releases.replaced_in(session, rows)
    found = configurations(session, [(row.env_id, row.config_version) for row in rows])
    configs = [
        config_row(row.config_version, found[row.env_id, row.config_version], replaced[row.rollout_id]) for row in rows
    ]
    return [release_row(row, config) for row, config in zip(rows, configs, strict=True)]


@router.post(E + "/deployments", **starts_job("Roll an artifact onto an environment"))
async def deploy(call: KeyedDep, site_id: str, env_id: str, body: DeploymentCreate) -> Response:
    def work(session: Session, once: Once) -> Job:
        site, environment = env_to_change(call, session, site_id, env_id, WRITE)
        once.claim(session)
        artifact = artifacts.deployable(session, call.sight, site, body.artifact_id)
        environments.require_ready(environment)
        return rollouts.accept_rollout(session, site, environment, artifact, call.caller.actor)

    return await call.start(body, work)


@router.post("/sites/{site_id}/deployments", **starts_job("Deploy a build, an artifact, or a ref that is built first"))
async def deploy_to_target(call: KeyedDep, site_id: str, body: SiteDeploymentCreate) -> Response:
    check_one_given(body)

    def work(session: Session, once: Once) -> Job:
        site = sites.site(session, call.sight, site_id)
        call.caller.require(WRITE)
        environment = environments.target(session, call.sight, site, body.target, param="target")
        call.caller.require_change(WRITE, site_id=site.id, env_id=environment.id)
        once.claim(session)
        if body.ref is not None:
            return _push(call, session, site, environment, body.ref, clean=body.clean)
        return _roll(call, session, site, environment, body)

    return await call.start(body, work)


def check_one_given(body: SiteDeploymentCreate) -> None:
    """Raises request.missing_parameter, request.invalid_parameter or ref.invalid."""
    given = [name for name in ("build_id", "artifact_id", "ref") if getattr(body, name) is not None]
    if len(given) != 1:
        code = "request.invalid_parameter" if given else "request.missing_parameter"
        raise HeadwayError(code, "Give exactly one of build_id, artifact_id and ref.", param=(given or ["ref"])[-1])
    if body.clean and body.ref is None:
        raise HeadwayError("request.invalid_parameter", "Only what is built can be built clean.", param="clean")
    if body.ref is not None:
        builds.check_ref(body.ref)


def _push(call: Call, session: Session, site: Site, environment: Environment, ref: str, *, clean: bool) -> Job:
    """Built first, unless a job that is on its way has that commit already."""
    joining.lock(session, environment)
    environments.require_ready(environment)
    known = joining.of_ref(session, environment, ref, clean=clean)
    return known or rollouts.accept_push(session, site, environment, ref, call.caller.actor, clean=clean)


def _roll(call: Call, session: Session, site: Site, environment: Environment, body: SiteDeploymentCreate) -> Job:
    """What was built already: a build's artifact, or an artifact by itself."""
    ref = build_id = None
    if body.build_id is not None:
        build = builds.build_of_site(session, site.id, body.build_id)
        artifact, ref, build_id = rollouts.artifact_of_build(session, build), build.ref, build.id
    else:
        artifact = artifacts.deployable(session, call.sight, site, body.artifact_id or "")
    environments.require_ready(environment)
    return rollouts.accept_rollout(session, site, environment, artifact, call.caller.actor, ref=ref, build_id=build_id)


@router.get(E + "/deployments", **lists(DeploymentRow, "List an environment's deployments"))
async def list_deployments(
    call: CallDep, paging: PagingDep, site_id: str, env_id: str, status: RolloutStatus | None = None
) -> Response:
    def fetch(session: Session, page: Page) -> tuple[Sequence[Rollout], bool]:
        _, environment = env_to_read(call, session, site_id, env_id, READ)
        return rollouts.list_rollouts(session, environment.id, page, status=status)

    return await call.page(paging, fetch, lambda rollout: deployment_row(rollout, call.parts.docs_url))


@router.get(E + "/deployments/{deployment_id}", **gives(DeploymentRow, "Get a deployment"))
async def get_deployment(call: CallDep, site_id: str, env_id: str, deployment_id: str) -> Response:
    def work(session: Session) -> Rollout:
        _, environment = env_to_read(call, session, site_id, env_id, READ)
        return rollouts.rollout_of(session, environment.id, deployment_id)

    return call.one(deployment_row(await call.read(work), call.parts.docs_url))


@router.post(
    E + "/deployments/{deployment_id}/rollback",
    **starts_job("Go back to the release that preceded a deployment, or to a given one"),
)
async def roll_back(
    call: KeyedDep, site_id: str, env_id: str, deployment_id: RolledBack, body: Rollback | None = None
) -> Response:
    def work(session: Session, once: Once) -> Job:
        site, environment = env_to_change(call, session, site_id, env_id, WRITE)
        known = None if deployment_id == CURRENT else rollouts.rollout_of(session, environment.id, deployment_id)
        once.claim(session)
        rollout = known or rollouts.live_rollout(session, environment.id)
        if body is not None and body.release_id is not None:
            to = releases.release_of(session, environment.id, body.release_id)
        else:
            to = releases.release_before(session, rollout)
        environments.require_ready(environment)
        keep = body is not None and body.keep_config
        return rollouts.accept_rollback(session, site, environment, to, call.caller.actor, keep_config=keep)

    return await call.start(body, work)


@router.post(E + "/promote", **starts_job("Roll what runs here onto another environment, without a rebuild"))
async def promote(call: KeyedDep, site_id: str, env_id: str, body: Promote) -> Response:
    def work(session: Session, once: Once) -> Job:
        site, source = environments.environment(session, call.sight, site_id, env_id)
        call.caller.require(WRITE)
        to = environments.target(session, call.sight, site, body.to_env, param="to_env")
        call.caller.require_change(WRITE, site_id=site.id, env_id=to.id)
        once.claim(session)
        if to.id == source.id:
            raise HeadwayError("request.invalid_parameter", "An environment is not promoted to itself.", param="to_env")
        environments.require_ready(to)
        return rollouts.accept_promotion(session, site, source, to, call.caller.actor)

    return await call.start(body, work)


@router.get(E + "/releases", **lists(ReleaseRow, "What ran on an environment, and when"))
async def list_releases(call: CallDep, paging: PagingDep, site_id: str, env_id: str) -> Response:
    def fetch(session: Session, page: Page) -> tuple[Sequence[tuple[Release, Json]], bool]:
        _, environment = env_to_read(call, session, site_id, env_id, READ)
        rows, more = releases.list_releases(session, environment.id, page)
        return list(zip(rows, shown(session, rows), strict=True)), more

    return await call.page(paging, fetch, lambda row: row[1], lambda row: (row[0].deployed_at, row[0].id))


@router.get(E + "/releases/{release_id}", **gives(ReleaseRow, "Get a release"))
async def get_release(call: CallDep, site_id: str, env_id: str, release_id: str) -> Response:
    def work(session: Session) -> Json:
        _, environment = env_to_read(call, session, site_id, env_id, READ)
        return shown(session, [releases.release_of(session, environment.id, release_id)])[0]

    return call.one(await call.read(work))
