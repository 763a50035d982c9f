"""One-off commands: a job that runs a command once, with the release and configuration that an environment serves."""

from __future__ import annotations

from typing import Any, Final

from sqlmodel import Session

from headway.errors import HeadwayError
from headway.ids import new_id
from store.environments import require_ready
from store.models import Artifact, Environment, Job, Release, Site
from store.outcomes import end_job
from store.releases import current_release

Json = dict[str, Any]
TYPE: Final = "environment.run"


def accept_command(
    session: Session,
    site: Site,
    environment: Environment,
    command: str,
    timeout: int,
    actor: Json,
    given: tuple[str, int] | None = None,
) -> Job:
    """A queued command. It is forgotten with the job's end: it may hold a secret.

    `given`: id and size of what it finds on its standard input.

    Raises release.none, environment.capability_unsupported (nothing that is static runs), and as `require_ready`.
    """
    require_ready(environment)
    release = _release(session, environment)
    if session.get_one(Artifact, release.artifact_id).kind != "dynamic":
        message = f"What runs on {environment.slug} is static: there is nothing to run a command with."
        raise HeadwayError("environment.capability_unsupported", message)
    job_id = new_id("job")
    job = Job(
        id=job_id,
        team_id=site.team_id,
        site_id=site.id,
        env_id=environment.id,
        type=TYPE,
        resource_type="command",
        resource_id=job_id,
        resource={"env_id": environment.id, "site_id": site.id},
        input={"command": command, "timeout": timeout, "given": list(given) if given else None},
        actor=actor,
    )
    session.add(job)
    return job


def place_command(session: Session, job: Job) -> Environment:
    """What is current when the job is claimed is what the command runs with, from then on."""
    environment = session.get_one(Environment, job.env_id)
    given = job.input or {}
    if "release_id" not in given:
        release = _release(session, environment)
        job.input = {**given, "release_id": release.id, "seq": release.seq}
    return environment


def begin_command(session: Session, job_id: str, host_id: str) -> Job:
    """The host that begins it is the one that runs it: told again it is the same run, and no other host begins it.

    Raises job.not_found, job.canceled and attempt.stale.
    """
    job = session.get(Job, job_id, with_for_update=True)
    environment = session.get(Environment, job.env_id) if job is not None else None
    if job is None or job.type != TYPE or environment is None or host_id not in environment.hosts:
        raise HeadwayError("job.not_found", f"There is no command {job_id} for the host {host_id}.")
    if job.finished_at is not None or "seq" not in (job.input or {}):
        raise HeadwayError("attempt.stale", f"The command {job_id} is {job.status}.")
    if job.cancel_requested_at is not None:
        raise HeadwayError("job.canceled", f"The command {job_id} was canceled.")
    given = {"host_id": host_id, **(job.input or {})}
    if given["host_id"] != host_id:
        raise HeadwayError("attempt.stale", f"The command {job_id} was begun on {given['host_id']}, which is away.")
    job.input, job.stage = given, "run"
    session.flush()
    return job


def command_of(session: Session, job_id: str, host_id: str) -> Job:
    """One that this host has begun and that goes on. Raises job.not_found, job.canceled and attempt.stale."""
    job = session.get(Job, job_id)
    if job is None or job.type != TYPE or (job.input or {}).get("host_id") != host_id:
        raise HeadwayError("job.not_found", f"The host {host_id} has begun no command {job_id}.")
    if job.finished_at is not None:
        raise HeadwayError("attempt.stale", f"The command {job_id} is {job.status}.")
    if job.cancel_requested_at is not None:
        raise HeadwayError("job.canceled", f"The command {job_id} was canceled.")
    return job


def end_command(session: Session, job: Job, exit_code: int, duration_ms: int) -> Job:
    """Its exit code is the command's own matter: the job has done what it was asked for."""
    given = job.input or {}
    result = {
        "exit_code": exit_code,
        "duration_ms": duration_ms,
        "release_id": given.get("release_id"),
        "host_id": given.get("host_id"),
    }
    return end_job(session, job, "succeeded", result=result)


def _release(session: Session, environment: Environment) -> Release:
    current = current_release(session, environment.id)
    if current is None:
        raise HeadwayError("release.none", f"Nothing runs on {environment.slug} yet.")
    return current
