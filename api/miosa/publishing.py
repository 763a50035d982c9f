"""Publish: freeze a sandbox by digest, build it, roll it, as one job; and the bridge from sandboxes (section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter
from sqlmodel import Session, select
from starlette.responses import Response

from api.idempotency import Once
from api.miosa.answers import AnyRow, PublishResultRow
from api.miosa.call import Call, KeyedDep
from api.miosa.deployments import (
    EXTERNAL,
    WRITE,
    D,
    make_site,
    one_shown,
    ownership,
    refuse_out_of_scope,
    site_to_change,
)
from api.miosa.document import gives
from api.miosa.freezing import freeze, output_path
from api.miosa.paths import workspace_path
from api.miosa.rows import release_row, service_rows, version_row
from api.miosa.schemas import Bridge, DeploymentCreate, Publish, PublishFields
from headway.broker import BuildOverrides
from headway.errors import HeadwayError
from store import environments
from store.builds import Given, accept_build
from store.models import Build, Environment, Job, Project, Site
from store.rollouts import accept_push
from store.sandboxes import sandbox
from store.versions import live_build, version
from store.workspaces import owner_of

router = APIRouter(tags=["publishing"])
Json = dict[str, Any]
# No branch of git can be called so: a newer publish takes the place of an older one that has not switched.
PUBLISHES: Final = "~publish"


@dataclass(frozen=True)
class Frozen:
    """What is to be built: a snapshot, and the command that builds it, by the request or else by the deployment."""

    sandbox_id: str
    sha256: str
    build_command: str | None


@router.post(D + "/publish", **gives(PublishResultRow, "Publish a sandbox as a new version", 200, 202))
async def publish(call: KeyedDep, deployment_id: str, body: Publish) -> Response:
    once = call.once(body)
    job, running = await call.known(once), True
    if job is None:
        frozen = await _frozen(call, body, _source(body), deployment_id)

        def work(session: Session, once: Once) -> list[Job]:
            site = site_to_change(call, session, deployment_id)
            once.claim(session)
            return accept(call, session, site, body, frozen)

        job, running = await call.accept(once, work)
    facts, status = await result_of(call, await call.end_of(job, running))
    return call.one(facts, status)


def _source(body: Publish) -> str:
    named = body.source_sandbox_id or (body.source.sandbox_id if body.source is not None else None)
    if named is None:
        raise HeadwayError("request.missing_parameter", "source_sandbox_id is required.", param="source_sandbox_id")
    return named


@router.post("/sandboxes/{sandbox_id}/deploy", **gives(AnyRow, "Publish this sandbox", 200, 202))
async def deploy_sandbox(call: KeyedDep, sandbox_id: str, body: Bridge | None = None) -> Response:
    return await _bridge(call, sandbox_id, body or Bridge())


@router.post("/sandboxes/{sandbox_id}/publish", **gives(AnyRow, "As deploy", 200, 202))
async def publish_sandbox(call: KeyedDep, sandbox_id: str, body: Bridge | None = None) -> Response:
    return await _bridge(call, sandbox_id, body or Bridge())


async def _bridge(call: Call, sandbox_id: str, body: Bridge) -> Response:
    """The publish result, and its ids flat beside it: each client reads others."""
    once = call.once(body)
    job, running = await call.known(once), True
    if job is None:
        _refuse_in_bridge(body)
        frozen = await _frozen(call, body, sandbox_id, body.deployment_id)
        name = body.name or ""
        if not name and body.deployment_id is None:
            name = await call.read(lambda session: _name_of(call, session, sandbox_id))

        def work(session: Session, once: Once) -> list[Job]:
            if body.deployment_id is not None:
                site = site_to_change(call, session, body.deployment_id)
                once.claim(session)
                return accept(call, session, site, body, frozen)
            call.caller.require_change(WRITE)
            once.claim(session)
            fields = {one: getattr(body, one) for one in ("build_command", "run_command", "metadata", *EXTERNAL)}
            project = owner_of(session, call.sight, call.team_id, ownership(body))
            made = make_site(call, session, project, DeploymentCreate(name=name, slug=body.slug, **fields))
            return [made, *accept(call, session, session.get_one(Site, made.site_id), body, frozen)]

        job, running = await call.accept(once, work)
    facts, status = await result_of(call, await call.end_of(job, running))
    return call.one({**facts, **_flat(facts)}, status)


def _refuse_in_bridge(body: Bridge) -> None:
    if body.domain or body.custom_domain:
        raise HeadwayError("request.unsupported", "Attach a domain to the deployment afterwards.", param="domain")


def _name_of(call: Call, session: Session, sandbox_id: str) -> str:
    found = sandbox(session, call.sight, call.team_id, sandbox_id)
    return found.name or f"sandbox-{found.id[-6:].lower()}"


def _flat(facts: Json) -> Json:
    deployment, version, release = facts["deployment"], facts["version"], facts["release"]
    return {
        "id": deployment["id"],
        "deployment_id": deployment["id"],
        "version_id": version["id"],
        "release_id": release["id"] if release else None,
        "state": deployment["state"],
        "url": deployment["public_url"],
        "public_url": deployment["public_url"],
    }


async def _frozen(call: Call, body: PublishFields, sandbox_id: str, deployment_id: str | None) -> Frozen:
    """What is published or, where a command builds that, the whole workspace."""
    refuse_out_of_scope(body.database)
    command = body.build_command
    if deployment_id is not None:
        site = await call.read(lambda session: site_to_change(call, session, deployment_id))
        command = site.build_command if command is None else command
    return Frozen(sandbox_id, await freeze(call, sandbox_id, "" if command else output_path(body)), command)


def accept(call: Call, session: Session, site: Site, body: PublishFields, frozen: Frozen) -> list[Job]:
    """The jobs of one publish: the environment's, where it is new, then the publish itself."""
    jobs = []
    environment = target(call, session, site, body.environment)
    if isinstance(environment, Job):
        jobs.append(environment)
        environment = session.get_one(Environment, environment.env_id)
    call.caller.require_change(WRITE, site_id=site.id, env_id=environment.id)
    if environment.status != "provisioning":
        environments.require_ready(environment)
    source = {"kind": "snapshot", "sha256": frozen.sha256, "sandbox_id": frozen.sandbox_id}
    labels = {name: getattr(body, name) for name in EXTERNAL if getattr(body, name) is not None}
    given = Given(
        source=source,
        overrides=overrides_of(body, site, frozen).model_dump(exclude_none=True),
        labels={**labels, "metadata": body.metadata} if body.metadata else labels,
    )
    ref, actor = f"sandbox:{frozen.sandbox_id}", call.caller.actor
    if body.promote:
        job = accept_push(
            session, site, environment, ref, actor, clean=False, trigger="publish", branch=PUBLISHES, given=given
        )
    else:
        job = accept_build(session, site, environment, actor, ref=ref, clean=False, trigger="publish", given=given)
    return [*jobs, job]


def overrides_of(body: PublishFields, site: Site, frozen: Frozen) -> BuildOverrides:
    """What a request says, and where it is silent, what the deployment says."""
    start = body.run_command or getattr(body, "start_command", None) or site.run_command
    dynamic = body.kind == "dynamic" or (body.kind == "auto" and start is not None and body.port is not None)
    if dynamic and not start:
        raise HeadwayError("request.missing_parameter", "A dynamic publish needs run_command.", param="run_command")
    return BuildOverrides(
        kind="dynamic" if dynamic else body.kind,
        build_command=frozen.build_command,
        output=(output_path(body) or None) if frozen.build_command else None,
        entrypoint=_entrypoint(body),
        run_command=start if body.kind != "static" else None,
        port=body.port,
        health_check_path=body.health_check_path,
    )


def _entrypoint(body: PublishFields) -> str | None:
    """Relative to what is published, also where it was given from the workspace on."""
    if body.entrypoint is None:
        return None
    named, output = workspace_path(body.entrypoint), output_path(body)
    return named.removeprefix(f"{output}/") if output and body.entrypoint.startswith("/") else named


def target(call: Call, session: Session, site: Site, name: str) -> Environment | Job:
    """An environment by name; staging is made with its first publish. Raises environment.not_found."""
    try:
        return environments.target(session, call.sight, site, name, param="environment")
    except HeadwayError as error:
        if name != "staging" or error.code != "environment.not_found":
            raise
    call.caller.require_change(WRITE, site_id=site.id)
    domain = call.parts.addresses.domain
    return environments.accept_environment(
        session, site, "staging", site.default_branch, call.caller.actor, domain, ephemeral=False
    )


async def result_of(call: Call, job: Job) -> tuple[Json, int]:
    """What a publish has come to: 200 when it has ended, however it did, else 202."""

    def work(session: Session) -> Json:
        site = session.get_one(Site, job.site_id)
        project = session.get(Project, site.project_id)
        found = version(session, site.id, build_of_job(session, job).id)
        live = live_build(session, job.env_id or "")
        serves = live is not None and live[1] == found.build.id
        row = version_row(found.build, site, project, found.rollout, found.artifact, call.parts, found.promoted_at)
        made = found.artifact if found.build.status == "succeeded" else None
        first = session.get(Build, made.build_id) if made else None
        release = release_row(made, first or found.build, site, project, call.parts, serves) if made else None
        return {
            "deployment": one_shown(call, session, site),
            "version": row,
            "release": release,
            "services": service_rows(site, made, serves),
            "promoted": found.rollout is not None and found.rollout.status == "succeeded",
            "operation_id": job.id,
        }

    return await call.read(work), 200 if job.finished_at is not None else 202


def build_of_job(session: Session, job: Job) -> Build:
    return session.exec(select(Build).where(Build.job_id == job.id)).one()
