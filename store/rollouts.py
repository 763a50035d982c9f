"""Rollouts: requests to put one artifact on one environment, in the order of acceptance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlmodel import Session, select

from headway.errors import HeadwayError
from headway.ids import new_id
from store.artifacts import require_kept
from store.builds import REPOSITORY, Given, new_build
from store.environments import next_acceptance
from store.jobs import add_job
from store.models import Artifact, Build, Environment, Job, Release, Rollout, Site
from store.paging import Page, fetch_page
from store.releases import current_release, is_watched
from store.slugs import is_branch_name

Json = dict[str, Any]
TYPES = {
    "deploy": "deployment.roll",
    "promote": "deployment.promote",
    "rollback": "deployment.rollback",
    "stop": "deployment.stop",
}


def list_rollouts(
    session: Session, env_id: str, page: Page, *, status: str | None = None
) -> tuple[Sequence[Rollout], bool]:
    query = select(Rollout).where(Rollout.env_id == env_id)
    if status is not None:
        query = query.where(Rollout.status == status)
    return fetch_page(session, query, page, time=Rollout.created_at, id=Rollout.id)


def rollout_of(session: Session, env_id: str, rollout_id: str) -> Rollout:
    found = session.get(Rollout, rollout_id)
    if found is None or found.env_id != env_id:
        raise HeadwayError("deployment.not_found", f"There is no deployment {rollout_id}.", param="deployment_id")
    return found


def accept_rollout(
    session: Session,
    site: Site,
    environment: Environment,
    artifact: Artifact,
    actor: Json,
    *,
    kind: str = "deploy",
    source_env_id: str | None = None,
    source_release_id: str | None = None,
    ref: str | None = None,
    build_id: str | None = None,
    keep_config: bool = False,
) -> Job:
    """A queued rollout of an artifact that exists, and its job. `kind`: deploy | promote | rollback.

    Raises artifact.collected: whoever collects waits for this transaction, or was first.
    """
    session.refresh(artifact, with_for_update={"read": True})
    require_kept(artifact)
    rollout = Rollout(
        id=new_id("dep"),
        site_id=site.id,
        env_id=environment.id,
        job_id="",
        kind=kind,
        artifact_id=artifact.id,
        build_id=build_id or artifact.build_id,
        source_env_id=source_env_id,
        source_release_id=source_release_id,
        ref=ref or artifact.ref,
        keep_config=keep_config,
        accept_seq=next_acceptance(session, environment),
        actor=actor,
    )
    return _add(session, site, environment, rollout, TYPES[kind], {"artifact_id": artifact.id})


def accept_push(
    session: Session,
    site: Site,
    environment: Environment,
    ref: str,
    actor: Json,
    *,
    clean: bool,
    trigger: str = "api",
    branch: str | None = None,
    given: Given = REPOSITORY,
) -> Job:
    """Build, then deploy, as one job: the rollout has its place in the order from now on.

    `branch` is set where the ref may move, so that a newer push of it supersedes this one.
    """
    # The environment's row before the site's, as whoever locks an environment first does: no two wait for each other.
    accept_seq = next_acceptance(session, environment)
    build = new_build(session, site, environment, ref, actor, clean=clean, trigger=trigger, given=given)
    rollout = Rollout(
        id=new_id("dep"),
        site_id=site.id,
        env_id=environment.id,
        job_id="",
        kind="deploy",
        build_id=build.id,
        ref=ref,
        branch=branch or branch_of(ref),
        accept_seq=accept_seq,
        status="waiting",
        actor=actor,
    )
    job = _add(session, site, environment, rollout, "deployment.push", {"build_id": build.id, "ref": ref})
    build.job_id = job.id
    session.add(build)
    return job


def branch_of(ref: str) -> str | None:
    """The branch that a ref names by its form; None for a commit id, a tag or an expression."""
    name = ref.removeprefix("refs/heads/")
    if name.startswith("refs/") or not is_branch_name(name):
        return None
    return None if len(name) >= 7 and all(letter in "0123456789abcdef" for letter in name) else name


def accept_promotion(session: Session, site: Site, source: Environment, to: Environment, actor: Json) -> Job:
    """What runs on `source` goes onto `to`, without a rebuild. Raises release.none."""
    current = current_release(session, source.id)
    if current is None:
        raise HeadwayError("release.none", f"Nothing runs on {source.slug} yet.")
    return accept_rollout(
        session,
        site,
        to,
        require_kept(session.get_one(Artifact, current.artifact_id)),
        actor,
        kind="promote",
        source_env_id=source.id,
        source_release_id=current.id,
        ref=current.ref,
    )


def live_rollout(session: Session, env_id: str) -> Rollout:
    """What is live: the rollout that is watched, else that of the current release. Raises release.none."""
    running = session.exec(select(Rollout).where(Rollout.env_id == env_id, Rollout.status == "running")).all()
    if watched := next((one for one in running if is_watched(one)), None):
        return watched
    release = current_release(session, env_id)
    if release is None:
        raise HeadwayError("release.none", "Nothing runs on that environment yet.")
    return session.get_one(Rollout, release.rollout_id)


def accept_rollback(
    session: Session, site: Site, environment: Environment, to: Release, actor: Json, *, keep_config: bool = False
) -> Job:
    """Back to that release's code and configuration; with `keep_config` to its code alone, under today's configuration.

    Raises release.already_current (but while another one is watched, which is live then) and artifact.collected.
    """
    running = select(Rollout).where(Rollout.env_id == environment.id, Rollout.status == "running")
    if to.current and not any(is_watched(one) for one in session.exec(running)):
        raise HeadwayError("release.already_current", f"The release {to.id} is the current one.")
    return accept_rollout(
        session,
        site,
        environment,
        require_kept(session.get_one(Artifact, to.artifact_id)),
        actor,
        kind="rollback",
        source_release_id=to.id,
        ref=to.ref,
        keep_config=keep_config,
    )


def accept_stop(session: Session, site: Site, environment: Environment, actor: Json) -> Job:
    """A rollout to nothing: the environment serves no release when its turn has come."""
    rollout = Rollout(
        id=new_id("dep"),
        site_id=site.id,
        env_id=environment.id,
        job_id="",
        kind="stop",
        accept_seq=next_acceptance(session, environment),
        actor=actor,
    )
    return _add(session, site, environment, rollout, TYPES["stop"], {})


def artifact_of_build(session: Session, build: Build) -> Artifact:
    """Raises build.not_succeeded."""
    artifact = session.get(Artifact, build.artifact_id) if build.artifact_id else None
    if build.status != "succeeded" or artifact is None:
        raise HeadwayError("build.not_succeeded", f"The build {build.id} is {build.status}.", param="build_id")
    return require_kept(artifact)


def _add(session: Session, site: Site, environment: Environment, rollout: Rollout, type: str, context: Json) -> Job:
    job = add_job(
        session,
        site=site,
        env_id=environment.id,
        type=type,
        resource_type="deployment",
        resource_id=rollout.id,
        actor=rollout.actor or {},
        resource={"env_id": environment.id, "site_id": site.id, **context},
    )
    rollout.job_id = job.id
    session.add(rollout)
    return job
