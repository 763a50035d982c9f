"""Ends: a job, a build and a rollout each reach one terminal state and keep it. A second end changes nothing."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import bindparam
from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from store.config_values import destroy_values
from store.events import tell_build, tell_deployment, tell_environment, tell_job, tell_release, tell_site
from store.hostnames import end_domains_of
from store.locks import forget_lock
from store.models import Artifact, Build, Environment, Hostname, Job, Release, Rollout, Site, utcnow
from store.reports import note_job

Json = dict[str, Any]
# What a visitor may see change; the other kinds are about what runs already.
DEPLOYING = ("deploy", "promote", "rollback")
ROLL_STATUS_OF_JOB = {"succeeded": "succeeded", "failed": "failed", "canceled": "canceled", "superseded": "canceled"}
_HOSTNAMES: Final = (
    select(Hostname).where(Hostname.env_id == bindparam("env_id")).order_by(col(Hostname.is_primary).desc()).limit(1)
)
_CURRENT: Final = select(Release).where(Release.env_id == bindparam("env_id"), col(Release.current))
_OF_ROLLOUT: Final = select(Release).where(Release.rollout_id == bindparam("rollout_id"))


def end_job(session: Session, job: Job, status: str, *, result: Json | None = None, error: Json | None = None) -> Job:
    """`status`: succeeded | failed | canceled. Terminal is final."""
    if job.finished_at is None:
        job.status, job.result, job.error, job.finished_at = status, result, error, utcnow()
        job.waits_for = None
        job.progress = 100 if status == "succeeded" else job.progress
        if job.type in ("sandbox.exec", "environment.run"):
            job.input = None  # a command and its variables are nobody's business once it has ended
        job.rev += 1
        session.add(job)
        tell_job(session, job)
        note_job(session, job)
    return job


def end_build(session: Session, build: Build, status: str, error: Json | None = None) -> Build:
    """`status`: succeeded | failed | canceled | superseded. Does not touch the job."""
    if build.finished_at is None:
        build.status, build.error, build.finished_at = status, error, utcnow()
        session.add(build)
        if status in ("succeeded", "failed"):
            tell_build(session, build, status)
    return build


def end_rollout(
    session: Session, rollout: Rollout, status: str, error: Json | None = None, *, superseded_by: str | None = None
) -> Rollout:
    """End a rollout that did not succeed and, where it is the whole job, the job with it."""
    # It may have ended since the caller read it: the last word is the locked row's.
    session.refresh(rollout, with_for_update=True)
    if rollout.finished_at is not None:
        return rollout
    rollout.status, rollout.error, rollout.finished_at = status, error, utcnow()
    session.add(rollout)
    if status == "failed" and rollout.kind in DEPLOYING:
        tell_deployment(session, rollout, "deployment.failed")
    job = session.get(Job, rollout.job_id, with_for_update=True)
    if job is not None and job.resource_type == "deployment":
        result: Json | None = {"superseded_by": superseded_by} if superseded_by else None
        if rollout.bake:
            result = {**(result or {}), "bake": rollout.bake}
        end_job(session, job, ROLL_STATUS_OF_JOB[status], result=result, error=error)
        # A push whose build was ended from outside: the build's own run cannot say so any more.
        for build in session.exec(select(Build).where(Build.job_id == job.id, col(Build.finished_at).is_(None))).all():
            end_build(session, build, "canceled" if status == "canceled" else "failed", error)
    return rollout


def succeed_build(session: Session, build_id: str) -> Build:
    """The build has its signed artifact; where the build is the whole job, so ends the job."""
    build = session.get(Build, build_id, with_for_update=True)
    if build is None:
        raise HeadwayError("build.not_found", f"There is no build {build_id}.")
    artifact = session.get(Artifact, build.artifact_id) if build.artifact_id else None
    if artifact is None:
        raise HeadwayError("sign.failed", f"Build {build_id} has no signed artifact.")
    end_build(session, build, "succeeded")
    job = session.get(Job, build.job_id, with_for_update=True)
    if job is not None and job.resource_type == "build":
        result = {
            "build_id": build.id,
            "artifact_id": artifact.id,
            "digest": f"sha256:{artifact.digest}",
            "commit_sha": build.commit_sha,
        }
        end_job(session, job, "succeeded", result=result)
    return build


def located(error: Json, build: Build | None) -> Json:
    """With the stage that the build had come to: fetch, detect, build or pack are one step of its run."""
    if build is None or build.stage is None or error.get("stage") != "build":
        return error
    return {**error, "stage": build.stage}


def fail_build(session: Session, build_id: str, error: Json, *, canceled: bool) -> Build:
    """End a build that made nothing; where the build is the whole job, so ends the job."""
    build = session.get(Build, build_id, with_for_update=True)
    if build is None:
        raise HeadwayError("build.not_found", f"There is no build {build_id}.")
    status = "canceled" if canceled else "failed"
    error = located(error, build)
    end_build(session, build, status, error)
    job = session.get(Job, build.job_id, with_for_update=True)
    if job is not None and job.resource_type == "build":
        end_job(session, job, status, error=error)
    return build


def record_live(session: Session, rollout_id: str, url: str | None) -> None:
    """The rollout's number is live: its release, or the environment's rest, is recorded. Idempotent by rollout."""
    rollout = session.get(Rollout, rollout_id, with_for_update=True)
    if rollout is None or rollout.kind != "suspend":
        append_release(session, rollout_id, url)
    elif rollout.finished_at is None:
        session.get_one(Environment, rollout.env_id, with_for_update=True).status = "suspended"
        rollout.status, rollout.finished_at = "succeeded", utcnow()
        job = session.get_one(Job, rollout.job_id, with_for_update=True)
        result = {"deployment_id": rollout.id, "env_id": rollout.env_id, "release_id": rollout.source_release_id}
        end_job(session, job, "succeeded", result=result)


def append_release(session: Session, rollout_id: str, url: str | None) -> Release:
    """The rollout is live: one release, current; the rollout and its job succeeded. Idempotent by rollout."""
    rollout = session.get(Rollout, rollout_id, with_for_update=True)
    if rollout is None or rollout.apply_seq is None or rollout.artifact_id is None:
        raise HeadwayError("deployment.not_found", f"There is no claimed deployment {rollout_id}.")
    known = session.exec(_OF_ROLLOUT, params={"rollout_id": rollout_id}).first()
    if known is not None:
        return known
    if rollout.finished_at is not None:
        raise HeadwayError("job.lost", f"Deployment {rollout_id} has ended already ({rollout.status}).")
    for old in session.exec(_CURRENT, params={"env_id": rollout.env_id}).all():
        old.current = False
    session.flush()
    release = Release(
        id="rel_" + rollout.id.split("_", 1)[1],
        site_id=rollout.site_id,
        env_id=rollout.env_id,
        rollout_id=rollout.id,
        artifact_id=rollout.artifact_id,
        seq=rollout.apply_seq,
        ref=rollout.ref,
        config_version=rollout.config_version,
        actor=rollout.actor,
    )
    session.add(release)
    environment = session.get(Environment, rollout.env_id, with_for_update=True)
    assert environment is not None  # noqa: S101
    environment.active_release_id = release.id
    if rollout.kind == "resume" and environment.status == "suspended":
        environment.status = "active"
    if rollout.kind == "scale":
        environment.instances = rollout.instances
    rollout.status, rollout.release_id, rollout.finished_at = "succeeded", release.id, utcnow()
    tell_release(session, release, rollout)
    if rollout.kind in DEPLOYING:
        tell_deployment(session, rollout, "site.deployed", url)
    job = session.get(Job, rollout.job_id, with_for_update=True)
    if job is not None and job.resource_type == "deployment":
        result: Json = {
            "deployment_id": rollout.id,
            "release_id": release.id,
            "env_id": rollout.env_id,
            "artifact_id": rollout.artifact_id,
            "url": url,
        }
        if job.type == "deployment.push":
            result["build_id"] = rollout.build_id
        if rollout.kind == "promote":
            result |= _promoted(session, rollout)
        if rollout.kind == "scale":
            result["instances"] = rollout.instances
        if rollout.bake:
            result["bake"] = rollout.bake
        if rollout.config_replaced:
            result["config_replaced"] = rollout.config_replaced
        if rollout.hosts_away:
            result["hosts_away"] = rollout.hosts_away
        end_job(session, job, "succeeded", result=result)
    return release


def _promoted(session: Session, rollout: Rollout) -> Json:
    """Whose bytes these are: the release that was promoted, by its number, and the artifact's digest."""
    source = session.get(Release, rollout.source_release_id) if rollout.source_release_id else None
    environment = session.get(Environment, source.env_id) if source is not None else None
    artifact = session.get(Artifact, rollout.artifact_id)
    if source is None or environment is None or artifact is None or source.artifact_id != artifact.id:
        return {}
    promoted = {"env_id": environment.id, "environment": environment.slug, "release_id": source.id}
    return {"promoted": {**promoted, "sequence": source.seq}, "digest": f"sha256:{artifact.digest}"}


def record_stop(session: Session, rollout_id: str) -> None:
    """The environment serves nothing: no release is current; the rollout and its job succeeded. Idempotent."""
    rollout = session.get_one(Rollout, rollout_id, with_for_update=True)
    if rollout.finished_at is not None:
        return
    for old in session.exec(_CURRENT, params={"env_id": rollout.env_id}).all():
        old.current = False
    environment = session.get_one(Environment, rollout.env_id, with_for_update=True)
    environment.active_release_id = None
    rollout.status, rollout.finished_at = "succeeded", utcnow()
    job = session.get_one(Job, rollout.job_id, with_for_update=True)
    end_job(session, job, "succeeded", result={"deployment_id": rollout.id, "env_id": rollout.env_id})


def primary_hostname(session: Session, env_id: str) -> str | None:
    """The host name under which an environment shows its address."""
    first = session.exec(_HOSTNAMES, params={"env_id": env_id}).first()
    return first.name if first else None


def activate(session: Session, env_id: str) -> None:
    """An environment's routes exist: it may serve; a new site becomes active with its production environment."""
    environment = session.get(Environment, env_id, with_for_update=True)
    if environment is None:
        raise HeadwayError("environment.not_found", f"There is no environment {env_id}.")
    if environment.status == "provisioning":
        environment.status = "active"
        tell_environment(session, environment, "created")
    site = session.get(Site, environment.site_id, with_for_update=True)
    if site is not None and site.status == "provisioning" and site.production_env_id == env_id:
        site.status = "active"
        tell_site(session, site)


def retire_environment(session: Session, env_id: str) -> None:
    """An environment's routes and folders are gone: so are its names; its releases stay for the record."""
    environment = session.get(Environment, env_id, with_for_update=True)
    if environment is None or environment.status == "gone":
        return
    environment.status, environment.deleted_at = "gone", utcnow()
    tell_environment(session, environment, "deleted")
    destroy_values(session, owner_id=env_id)
    forget_lock(session, env_id)
    end_domains_of(session, env_id)
    for hostname in session.exec(select(Hostname).where(Hostname.env_id == env_id)).all():
        session.delete(hostname)
