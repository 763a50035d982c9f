"""A rollout that its only host takes up by itself: turn, order and point of no return in one question.

What does not go like that is left as it was: the rollout's run asks for its turn then, as ever.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, exists
from sqlmodel import Session, SQLModel, col, select

from headway.errors import HeadwayError
from store.fleet import hosts_for, hosts_of
from store.models import Build, Environment, Job, Rollout
from store.queue import claim_turn, rollout_of_job

# Jobs whose runs may begin like that. A push is built first: who is in its way now is gone by then, or is not.
TAKEN: Final = frozenset({"deployment.roll", "deployment.promote", "deployment.rollback"})
BUILT_FIRST: Final = frozenset({"deployment.push"})
# How a claim says that there is nothing to carry out any more.
ENDED: Final = frozenset({"job.lost", "job.canceled"})
_ENVIRONMENTS = SQLModel.metadata.tables["environment"]
_PLACE: Final = select(_ENVIRONMENTS.c.hosts, _ENVIRONMENTS.c.host_labels, _ENVIRONMENTS.c.bake_seconds).where(
    _ENVIRONMENTS.c.id == bindparam("env_id")
)
_BUSY: Final = select(
    exists().where(
        col(Rollout.env_id) == bindparam("env_id"),
        col(Rollout.finished_at).is_(None),
        col(Rollout.job_id) != bindparam("job_id"),
    )
)


class Later(Exception):
    """Not now, or not like that: nothing of it is to be kept."""


def may_begin_on(session: Session, job: Job) -> str:
    """The host that may take the job's rollout up at once; empty where it would not get it. A guess: taking decides."""
    if job.type not in TAKEN | BUILT_FIRST or job.env_id is None:
        return ""
    found = session.connection().execute(_PLACE, {"env_id": job.env_id}).first()
    if found is None or len(found.hosts) != 1 or found.host_labels:
        return ""
    if found.bake_seconds and job.type != "deployment.rollback":
        return ""
    if job.type in TAKEN and session.connection().execute(_BUSY, {"env_id": job.env_id, "job_id": job.id}).scalar():
        return ""
    return str(found.hosts[0])


def take(session: Session, job_id: str, host_id: str) -> Rollout:
    """The job's rollout, claimed for `host_id` alone or running there already.

    Raises Later, and deployment.not_found for a host that would have no part in it.
    """
    seen = rollout_of_job(session, job_id)
    environment = session.get(Environment, seen.env_id) if seen is not None else None
    if seen is None or environment is None or host_id not in hosts_for(session, environment):
        raise HeadwayError("deployment.not_found", f"Job {job_id} has no deployment for the host {host_id}.")
    # What a push has built, and the signing worker has signed, joins the queue with this.
    build = session.get(Build, seen.build_id) if seen.build_id else None
    try:
        rollout = claim_turn(session, job_id, build.artifact_id if build is not None else None, seen=seen)
    except HeadwayError as error:
        if error.code not in ENDED:
            raise
        raise Later from error
    if rollout.status != "running" or hosts_of(session, rollout) != [host_id]:
        raise Later
    if environment.bake_seconds and rollout.kind != "rollback":
        raise Later
    return rollout
