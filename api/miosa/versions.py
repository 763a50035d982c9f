"""Versions, releases, builds: what was published, promote and rollback (contract sections 4 to 7)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Annotated, Any, Final, Literal

import anyio
from fastapi import APIRouter, Header
from sqlalchemy import ColumnElement, false, true
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar
from starlette.responses import Response, StreamingResponse

from api.idempotency import Once
from api.miosa import names
from api.miosa.answers import BuildRow, DeploymentRow, ReleaseRow, VersionRow, VersionState
from api.miosa.call import Call, CallDep, KeyedDep, PagingDep
from api.miosa.deployments import EXTERNAL, D, Filter, one_shown, site_of, site_to_change
from api.miosa.document import gives, gives_raw, lists
from api.miosa.publishing import PUBLISHES, build_of_job
from api.miosa.rows import BUILD_STATES, build_row, release_row, version_row, version_state
from api.miosa.schemas import Nothing, Promote, Rollback
from api.preferences import number_of
from api.streams import PING, as_events, frame, of_build
from headway.errors import HeadwayError
from store import environments
from store.artifacts import artifact_of, require_kept
from store.builds import Given
from store.models import Artifact, Build, Environment, Job, Project, Site
from store.rollouts import accept_push, accept_rollout, accept_stop
from store.versions import (
    Version,
    builds_of_site,
    earlier_build,
    in_state,
    last_open,
    live_build,
    version,
    versions,
)
from store.workspaces import workspace_id_of

router = APIRouter(tags=["versions"])
Json = dict[str, Any]
V: Final = D + "/versions/{version_id}"
R: Final = D + "/releases/{release_id}"


def _shown(call: Call, session: Session, site: Site, found: Version) -> Json:
    project = session.get(Project, site.project_id)
    return version_row(found.build, site, project, found.rollout, found.artifact, call.parts, found.promoted_at)


@router.get(D + "/versions", **lists(VersionRow, "List a deployment's versions"))
async def list_versions(
    call: CallDep,
    paging: PagingDep,
    deployment_id: str,
    state: VersionState | None = None,
    workspace_id: Filter = None,
    external_workspace_id: Filter = None,
    external_user_id: Filter = None,
    external_project_id: Filter = None,
) -> Response:
    filters = dict(zip(EXTERNAL, (external_workspace_id, external_user_id, external_project_id), strict=True))

    def query(session: Session) -> SelectOfScalar[Build]:
        site = site_of(call, session, deployment_id)
        found = builds_of_site(site.id)
        if workspace_id is not None:
            found = found.where(_is_of(session, site, workspace_id))
        for name, value in filters.items():
            if value is not None and value != getattr(site, name):
                found = found.where(col(Build.labels)[name].as_string() == value)
        return found.where(in_state(state)) if state is not None else found

    def show(session: Session, rows: Sequence[Build]) -> list[Json]:
        site = site_of(call, session, deployment_id)
        return [_shown(call, session, site, one) for one in versions(session, rows)]

    return await call.listed(paging, query, show, time=Build.created_at, id=Build.id)


def _is_of(session: Session, site: Site, workspace_id: str) -> ColumnElement[bool]:
    """All of a deployment's versions are of its workspace, and so of no other."""
    project = session.get(Project, site.project_id)
    return true() if project is not None and workspace_id_of(project) == workspace_id else false()


@router.get(V, **gives(VersionRow, "Get a version"))
async def get_version(call: CallDep, deployment_id: str, version_id: str) -> Response:
    def work(session: Session) -> Json:
        site = site_of(call, session, deployment_id)
        return _shown(call, session, site, version(session, site.id, names.build_id(version_id)))

    return call.one(await call.read(work))


def require_version(found: Version) -> Artifact:
    """Raises version.not_ready or artifact.collected (410)."""
    state, name = version_state(found.build, found.rollout, found.artifact), names.shown(found.build.id)
    if state in ("created", "building"):
        raise HeadwayError("version.not_ready", f"The version {name} is {state}.", param="version_id", retryable=True)
    if state == "failed" or found.artifact is None:
        raise HeadwayError("version.not_ready", f"The version {name} has failed.", param="version_id")
    return require_kept(found.artifact)


async def _roll(
    call: Call,
    deployment_id: str,
    once: Once,
    work: Callable[[Session, Once], list[Job]],
    beside: Callable[[Session, Site, Job], Json] | None = None,
) -> Response:
    """Start a rollout and answer with the deployment when it has ended; without one nothing had to be done."""
    job, running = await call.known(once), True
    if job is None:
        job, running = await call.accept_any(once, work)
    if job is not None:
        job = await call.end_of(job, running)
        if job.status == "failed":
            raise HeadwayError.from_dict(job.error or {})
        if job.status == "canceled":
            raise HeadwayError("job.canceled", "It was canceled, or something accepted later has taken its place.")

    def read(session: Session) -> Json:
        site = site_of(call, session, deployment_id)
        more = beside(session, site, job) if beside is not None and job is not None else {}
        return {**one_shown(call, session, site), **more}

    return call.one(await call.read(read), 200 if job is None or job.finished_at is not None else 202)


def _environment(call: Call, session: Session, site: Site, name: str) -> Environment:
    """Locked: whoever looks at what runs and what waits there decides alone."""
    found = environments.target(session, call.sight, site, name, param="environment")
    site_to_change(call, session, names.shown(site.id), found.id)
    environment = session.get_one(Environment, found.id, with_for_update=True)
    if environment.status != "provisioning":
        environments.require_ready(environment)
    return environment


def _promote(
    call: Call, session: Session, site: Site, to: Environment, artifact: Artifact, build_id: str, kind: str = "promote"
) -> list[Job]:
    """Nothing to do where this version runs and nothing else waits."""
    live = live_build(session, to.id)
    if live is not None and live[1] == build_id and last_open(session, to) is None:
        return []
    return [accept_rollout(session, site, to, artifact, call.caller.actor, kind=kind, build_id=build_id)]


@router.post(V + "/promote", **gives(DeploymentRow, "Make a ready version the active one, without a rebuild", 200, 202))
async def promote_version(call: KeyedDep, deployment_id: str, version_id: str, body: Promote | None = None) -> Response:
    def work(session: Session, once: Once) -> list[Job]:
        site = site_to_change(call, session, deployment_id)
        found = version(session, site.id, names.build_id(version_id))
        to = _environment(call, session, site, (body or Promote()).environment)
        once.claim(session)
        return _promote(call, session, site, to, require_version(found), found.build.id)

    return await _roll(call, deployment_id, call.once(body), work)


@router.post(D + "/rollback", **gives(DeploymentRow, "Go back to a version, or to the previous one", 200, 202))
async def roll_back(call: KeyedDep, deployment_id: str, body: Rollback | None = None) -> Response:
    wanted = body or Rollback()

    def work(session: Session, once: Once) -> list[Job]:
        site = site_to_change(call, session, deployment_id)
        to = _environment(call, session, site, wanted.environment)
        once.claim(session)
        artifact, build_id = _earlier(session, site, to, wanted)
        return _promote(call, session, site, to, artifact, build_id, kind="rollback")

    return await _roll(call, deployment_id, call.once(body), work)


def _earlier(session: Session, site: Site, to: Environment, wanted: Rollback) -> tuple[Artifact, str]:
    """What is gone back to: a version, a release, or what ran there before; with the build that made it."""
    if wanted.version_id is not None:
        found = version(session, site.id, names.build_id(wanted.version_id))
        return require_version(found), found.build.id
    if wanted.release_id is not None:
        artifact = require_kept(artifact_of(session, site.id, names.artifact_id(wanted.release_id)))
        return artifact, artifact.build_id
    release, named = earlier_build(session, to.id)
    artifact = require_kept(session.get_one(Artifact, release.artifact_id))
    return artifact, named or artifact.build_id


@router.post(D + "/redeploy", **gives(DeploymentRow, "Build the last version's source again, and roll it", 200, 202))
async def redeploy(call: KeyedDep, deployment_id: str, body: Nothing | None = None) -> Response:
    def work(session: Session, once: Once) -> list[Job]:
        site = site_to_change(call, session, deployment_id)
        to = _environment(call, session, site, "production")
        once.claim(session)
        last = session.exec(builds_of_site(site.id).order_by(col(Build.id).desc())).first()
        if last is None and site.repository is None:
            raise HeadwayError("repository.missing", "Nothing was published yet.")
        given = Given(last.source, last.overrides, last.labels) if last else Given()
        ref = last.ref if last and last.source else site.default_branch
        branch = PUBLISHES if given.source else None
        actor = call.caller.actor
        return [accept_push(session, site, to, ref, actor, clean=False, trigger="redeploy", branch=branch, given=given)]

    return await _roll(call, deployment_id, call.once(body), work, _build_beside)


def _build_beside(session: Session, site: Site, job: Job) -> Json:
    """Who reads a build where this answers with the deployment finds one in it."""
    return {"build": build_row(build_of_job(session, job), site)}


@router.post(D + "/stop", **gives(DeploymentRow, "Take a deployment off the air; its versions stay", 200, 202))
async def stop_deployment(call: KeyedDep, deployment_id: str, body: Nothing | None = None) -> Response:
    def work(session: Session, once: Once) -> list[Job]:
        site = site_to_change(call, session, deployment_id)
        of = _environment(call, session, site, "production")
        once.claim(session)
        if live_build(session, of.id) is None and last_open(session, of) is None:
            return []
        return [accept_stop(session, site, of, call.caller.actor)]

    return await _roll(call, deployment_id, call.once(body), work)


# releases


@router.get(D + "/releases", **lists(ReleaseRow, "List a deployment's releases: signed, content-addressed artifacts"))
async def list_releases(call: CallDep, paging: PagingDep, deployment_id: str) -> Response:
    def query(session: Session) -> SelectOfScalar[Artifact]:
        return select(Artifact).where(Artifact.site_id == site_of(call, session, deployment_id).id)

    def show(session: Session, rows: Sequence[Artifact]) -> list[Json]:
        site = site_of(call, session, deployment_id)
        return [_release(call, session, site, row) for row in rows]

    return await call.listed(paging, query, show, time=Artifact.created_at, id=Artifact.id)


def _release(call: Call, session: Session, site: Site, artifact: Artifact) -> Json:
    live = live_build(session, site.production_env_id or "")
    active = live is not None and live[0].artifact_id == artifact.id
    build = session.get_one(Build, artifact.build_id)
    return release_row(artifact, build, site, session.get(Project, site.project_id), call.parts, active)


@router.get(R, **gives(ReleaseRow, "Get a release"))
async def get_release(call: CallDep, deployment_id: str, release_id: str) -> Response:
    def work(session: Session) -> Json:
        site = site_of(call, session, deployment_id)
        return _release(call, session, site, artifact_of(session, site.id, names.artifact_id(release_id)))

    return call.one(await call.read(work))


@router.get("/releases/{release_id}", **gives(ReleaseRow, "Get a release by its id alone"))
async def get_release_alone(call: CallDep, release_id: str) -> Response:
    def work(session: Session) -> Json:
        missing = HeadwayError("artifact.not_found", f"There is no release {release_id}.")
        artifact = session.get(Artifact, names.artifact_id(release_id))
        if artifact is None:
            raise missing
        try:
            site = site_of(call, session, names.shown(artifact.site_id))
        except HeadwayError as error:
            # Another's release is said to be missing in the words of one that never was.
            raise (missing if error.code == "site.not_found" else error) from None
        return _release(call, session, site, artifact)

    return call.one(await call.read(work))


@router.get(V + "/release", **gives(ReleaseRow, "Get a version's release"))
async def get_version_release(call: CallDep, deployment_id: str, version_id: str) -> Response:
    def work(session: Session) -> Json:
        site = site_of(call, session, deployment_id)
        found = version(session, site.id, names.build_id(version_id))
        if found.artifact is None:
            raise HeadwayError("artifact.not_found", f"The version {version_id} has no release.")
        return _release(call, session, site, found.artifact)

    return call.one(await call.read(work))


@router.post(R + "/promote", **gives(DeploymentRow, "Make a release the active one, without a rebuild", 200, 202))
async def promote_release(call: KeyedDep, deployment_id: str, release_id: str, body: Promote | None = None) -> Response:
    """A client's fixed key joins what is open or active, and starts anew otherwise: R1, R2, R1 are three promotions."""
    fixed = call.idempotency_key == f"promote:{deployment_id}:{release_id}"

    def work(session: Session, once: Once) -> list[Job]:
        site = site_to_change(call, session, deployment_id)
        artifact = artifact_of(session, site.id, names.artifact_id(release_id))
        to = _environment(call, session, site, (body or Promote()).environment)
        once.claim(session)
        return _joined(call, session, site, to, require_kept(artifact))

    once = call.without_key().once(body) if fixed else call.once(body)
    return await _roll(call, deployment_id, once, work)


def _joined(call: Call, session: Session, site: Site, to: Environment, artifact: Artifact) -> list[Job]:
    """The job that brings an artifact: the one that is on its way with it, none where it is live, else a new one."""
    waiting, live = last_open(session, to), live_build(session, to.id)
    if waiting is not None and waiting.artifact_id == artifact.id:
        return [session.get_one(Job, waiting.job_id)]
    if waiting is None and live is not None and live[0].artifact_id == artifact.id:
        return []
    return [accept_rollout(session, site, to, artifact, call.caller.actor, kind="promote")]


# builds and logs


@router.get(D + "/builds", tags=["builds"], **lists(BuildRow, "List a deployment's builds"))
async def list_builds(call: CallDep, paging: PagingDep, deployment_id: str) -> Response:
    def query(session: Session) -> SelectOfScalar[Build]:
        return builds_of_site(site_of(call, session, deployment_id).id)

    def show(session: Session, rows: Sequence[Build]) -> list[Json]:
        site = site_of(call, session, deployment_id)
        return [build_row(row, site) for row in rows]

    return await call.listed(paging, query, show, time=Build.created_at, id=Build.id)


def _build(call: Call, session: Session, deployment_id: str, build_id: str) -> tuple[Site, Build]:
    site = site_of(call, session, deployment_id)
    return site, version(session, site.id, names.build_id(build_id)).build


@router.get(D + "/builds/{build_id}", tags=["builds"], **gives(BuildRow, "Get a build"))
async def get_build(call: CallDep, deployment_id: str, build_id: str) -> Response:
    site, build = await call.read(lambda session: _build(call, session, deployment_id, build_id))
    return call.one(build_row(build, site))


@router.get(
    D + "/builds/{build_id}/logs",
    tags=["builds"],
    **gives_raw("Follow a build's log", "text/event-stream"),
)
async def follow_build(
    call: CallDep, deployment_id: str, build_id: str, last_event_id: Annotated[str | None, Header()] = None
) -> Response:
    _, build = await call.read(lambda session: _build(call, session, deployment_id, build_id))
    frames = follow_lines(call, build, number_of(last_event_id) or 0)
    return as_events(call, frames)


def told_as(stream: str) -> str:
    """This dialect has two streams (contract section 7): what the platform itself says is not a program's output."""
    return stream if stream in ("stdout", "stderr") else "stderr"


async def follow_lines(call: Call, build: Build, after: int) -> AsyncGenerator[bytes, None]:
    """`log_line` frames as they come, then `done` with how it ended."""
    reader = call.parts.events.reader(build.job_id, after=after)
    async with call.parts.watch.on(build.job_id, 0) as subscription:
        while True:
            now = await call.read(lambda session: session.get_one(Build, build.id))
            while lines := await anyio.to_thread.run_sync(reader.read):
                for line in filter(of_build, lines):
                    facts = {"stream": told_as(line["stream"]), "line": line["line"], "ts": line["ts"]}
                    yield frame("log_line", facts, line["n"])
            if now.finished_at is not None:
                state = BUILD_STATES[now.status]
                yield frame("done", {"result": {"state": state}, "state": state})
                return
            if call.parts.watch.closing:
                return
            if not await subscription.wait(PING):
                yield b": ping\n\n"


Stage = Literal["build", "runtime_install", "runtime_start"]


@router.get(V + "/logs", **gives_raw("A version's log", "text/plain"))
async def version_logs(call: CallDep, deployment_id: str, version_id: str, stage: Stage = "build") -> Response:
    _, build = await call.read(lambda session: _build(call, session, deployment_id, version_id))
    return StreamingResponse(_text(call, build, stage), media_type="text/plain; charset=utf-8")


def of_stage(line: Json, stage: str) -> bool:
    """Nothing is installed when a service starts: that stage has no lines."""
    if stage == "build":
        return of_build(line)
    return stage == "runtime_start" and line["k"] == "log" and line["stage"] in ("start", "health")


async def text_lines(call: Call, build: Build, stage: str) -> list[str]:
    return b"".join([piece async for piece in _text(call, build, stage)]).decode().splitlines()


async def _text(call: Call, build: Build, stage: str) -> AsyncGenerator[bytes, None]:
    reader = call.parts.events.reader(build.job_id)
    while lines := await anyio.to_thread.run_sync(reader.read):
        yield "".join(line["line"] + "\n" for line in lines if of_stage(line, stage)).encode()
