"""What is done about the artifact that runs on an environment already: restart, scale, suspend, resume, repair.

Each is a rollout with a place in the environment's order. What they put there is read when their turn comes: what ran
when they were asked for may have been replaced by then.
"""

from __future__ import annotations

from typing import Any, Final

from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from headway.ids import new_id
from store.environments import next_acceptance, require_ready
from store.jobs import add_job
from store.models import Artifact, Environment, Job, Rollout, Site
from store.releases import current_release

Json = dict[str, Any]
MOST_INSTANCES: Final = 8


def accept_action(
    session: Session, site: Site, environment: Environment, kind: str, actor: Json, *, instances: int | None = None
) -> Job:
    """A queued restart, scale, suspend or resume, and its job. Suspend and resume are asked for once at a time.

    Raises release.none, environment.suspended, environment.not_suspended, environment.not_active and
    environment.capability_unsupported (what has no instances is neither restarted nor scaled).
    """
    if kind in ("suspend", "resume") and (known := _open(session, environment, kind)) is not None:
        return known
    if kind == "resume":
        _require_suspended(session, environment)
    else:
        require_ready(environment)
    current = current_release(session, environment.id)
    if current is None:
        raise HeadwayError("release.none", f"Nothing runs on {environment.slug} yet.")
    if kind in ("restart", "scale") and session.get_one(Artifact, current.artifact_id).kind != "dynamic":
        message = f"What runs on {environment.slug} is static: there is no instance to {kind}."
        raise HeadwayError("environment.capability_unsupported", message)
    return add_action(session, site, environment, kind, actor, instances=instances)


def add_action(
    session: Session, site: Site, environment: Environment, kind: str, actor: Json, *, instances: int | None = None
) -> Job:
    rollout_id = new_id("dep")
    job = add_job(
        session,
        site=site,
        env_id=environment.id,
        type=f"environment.{kind}",
        resource_type="deployment",
        resource_id=rollout_id,
        actor=actor,
        resource={"env_id": environment.id, "site_id": site.id} | ({"instances": instances} if instances else {}),
    )
    rollout = Rollout(
        id=rollout_id,
        site_id=site.id,
        env_id=environment.id,
        job_id=job.id,
        kind=kind,
        accept_seq=next_acceptance(session, environment),
        instances=instances,
        actor=actor,
    )
    session.add(rollout)
    return job


def _open(session: Session, environment: Environment, kind: str) -> Job | None:
    """The job that does so already, unless something was asked for behind it."""
    unfinished = select(Rollout).where(Rollout.env_id == environment.id, col(Rollout.finished_at).is_(None))
    last = session.exec(unfinished.order_by(col(Rollout.accept_seq).desc())).first()
    return session.get(Job, last.job_id) if last is not None and last.kind == kind else None


def _require_suspended(session: Session, environment: Environment) -> None:
    """Suspended, or about to be."""
    if environment.status == "suspended":
        return
    about_to = select(Rollout.id).where(
        Rollout.env_id == environment.id, Rollout.kind == "suspend", col(Rollout.finished_at).is_(None)
    )
    if session.exec(about_to).first() is None:
        raise HeadwayError("environment.not_suspended", f"The environment {environment.slug} is {environment.status}.")
