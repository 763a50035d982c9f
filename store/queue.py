"""Claims: what may start, and in which order. Every function is one write transaction's work.

Invariants 2 and 3 of the design live here: only an unclaimed `queued` row starts; one rollout at a time per
environment, in the order of acceptance, with two sequence numbers each.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import bindparam
from sqlmodel import Session, col, or_, select

from headway.errors import HeadwayError
from store.config_sets import freeze
from store.events import tell_build
from store.fleet import hosts_for, hosts_of
from store.models import Build, Environment, Job, Release, Rollout, Site, utcnow
from store.models_policy import Decision
from store.outcomes import end_build, end_job, end_rollout, succeed_build
from store.policies import conclude, decide, effective, refusal, waits_for
from store.reports import note_job

# Kinds about the artifact that runs already: they learn which one that is when they are claimed.
ABOUT_WHAT_RUNS = ("restart", "scale", "suspend", "resume", "repair")
Json = dict[str, Any]
ROLL_JOBS = (
    "deployment.roll",
    "deployment.promote",
    "deployment.rollback",
    "deployment.stop",
    *(f"environment.{kind}" for kind in ABOUT_WHAT_RUNS),
)
# What does not wait for a bake to be over: the release that is watched makes way.
ENDS_BAKE = ("rollback", "suspend")
# On the path of every rollout: built once.
_OF_JOB: Final = select(Rollout).where(Rollout.job_id == bindparam("job_id"))
_OPEN: Final = (
    select(Rollout)
    .where(Rollout.env_id == bindparam("env_id"), col(Rollout.finished_at).is_(None))
    .order_by(col(Rollout.accept_seq))
)


def job_by_id(session: Session, job_id: str) -> Job:
    job = session.get(Job, job_id, with_for_update=True)
    if job is None:
        raise HeadwayError("job.not_found", f"There is no job {job_id}.")
    return job


def rollout_of_job(session: Session, job_id: str) -> Rollout | None:
    return session.exec(_OF_JOB, params={"job_id": job_id}).one_or_none()


def claim_job(session: Session, job_id: str) -> Job:
    """Take a queued job, or take it up again after a lost answer or a reset run.

    Raises job.canceled if it was canceled before it started, job.lost if it has ended.
    """
    job = job_by_id(session, job_id)
    if job.finished_at is not None:
        code = "job.canceled" if job.status == "canceled" else "job.lost"
        raise HeadwayError(code, f"Job {job_id} has ended already ({job.status}).")
    if job.status == "queued":
        job.status, job.started_at, job.rev = "running", utcnow(), job.rev + 1
    return job


def claim_build(session: Session, build_id: str) -> tuple[Build, Job, Site, Environment]:
    """Take a build and, where the build is the whole job, the job with it. Raises as `claim_job`."""
    build = session.get(Build, build_id, with_for_update=True)
    if build is None:
        raise HeadwayError("build.not_found", f"There is no build {build_id}.")
    job = claim_job(session, build.job_id)
    if build.finished_at is not None and build.status != "succeeded":
        raise HeadwayError("job.lost", f"Build {build_id} has ended already ({build.status}).")
    if build.status == "queued":
        build.status, build.started_at = "running", utcnow()
        tell_build(session, build, "started")
    note_job(session, job)
    site, environment = session.get(Site, build.site_id), session.get(Environment, build.env_id)
    assert site is not None  # noqa: S101
    assert environment is not None  # noqa: S101
    return build, job, site, environment


def claim_turn(
    session: Session, job_id: str, artifact_id: str | None = None, *, seen: Rollout | None = None
) -> Rollout:
    """The job's rollout: `running` if it is carried out from now on (or was before), else how it stands.

    One at a time per environment: rollbacks first, then the order of acceptance. On the way, what was canceled or
    superseded is ended. What a policy holds has no place in that order: it is `held` until it is allowed, and what is
    refused ends. `artifact_id`: what the job's own build has made, which joins the queue with it. `seen`: the job's
    rollout, where the caller has read it already.
    Raises deployment.not_found, and as `claim_job` where the rollout has ended.
    """
    rollout = seen or rollout_of_job(session, job_id)
    if rollout is None:
        raise HeadwayError("deployment.not_found", f"Job {job_id} has no deployment.")
    environment = session.get_one(Environment, rollout.env_id, with_for_update=True)
    # It may have changed until the lock was had: a second run of the same job must not go by an old look.
    session.refresh(rollout, with_for_update=True)
    if rollout.finished_at is not None and rollout.status != "superseded":
        code = "job.canceled" if rollout.status == "canceled" else "job.lost"
        raise HeadwayError(code, f"Deployment {rollout.id} has ended already ({rollout.status}).")
    if artifact_id is not None and rollout.build_id is not None and rollout.status == "waiting":
        ready_rollout(session, rollout.id, artifact_id)
        succeed_build(session, rollout.build_id)
    if rollout.status in ("queued", "held"):
        _judge(session, environment, rollout)
    if rollout.status == "queued" and _first(session, environment) is rollout:
        # What it reads depends on nothing that it writes: all of that is written at once.
        session.flush()
        with session.no_autoflush:
            _take(session, environment, rollout)
    return rollout


def _judge(session: Session, environment: Environment, rollout: Rollout) -> None:
    """Held, queued or refused, by what its policies say now. Asked by its own run alone, before it could be taken."""
    policies = effective(session, rollout.site_id, rollout.env_id)
    if rollout.status == "queued" and not policies and environment.pin is None:
        return
    if _ended_before_start(session, environment, rollout, _open(session, environment.id)):
        return
    decision = decide(session, environment, rollout, policies)
    if decision is not None and decision.outcome == "refused":
        end_rollout(session, rollout, "failed", refusal(decision))
        return
    held = decision is not None and decision.outcome == "held"
    waits = waits_for(decision) if decision is not None and held else None
    job = job_by_id(session, rollout.job_id)
    rollout.status = "held" if held else "queued"
    if job.waits_for != waits:
        job.waits_for, job.stage, job.rev = waits, "hold" if held else None, job.rev + 1


def _first(session: Session, environment: Environment) -> Rollout | None:
    """What the environment carries out now or next."""
    open_rollouts = _open(session, environment.id)
    running = next((r for r in open_rollouts if r.status == "running"), None)
    if running is not None:
        return running
    for rollout in _in_line(open_rollouts):
        if not _ended_before_start(session, environment, rollout, open_rollouts):
            return rollout
    return None


def _open(session: Session, env_id: str) -> list[Rollout]:
    return list(session.exec(_OPEN, params={"env_id": env_id}).all())


def _in_line(rollouts: Sequence[Rollout]) -> list[Rollout]:
    queued = (rollout for rollout in rollouts if rollout.status == "queued")
    return sorted(queued, key=lambda one: (one.kind != "rollback", one.accept_seq))


def next_in_line(session: Session, env_id: str) -> Rollout | None:
    """Whose turn it is, if nobody's rollout runs: the run that carries it out may not know."""
    open_rollouts = _open(session, env_id)
    if any(rollout.status == "running" for rollout in open_rollouts):
        return None
    return next(iter(_in_line(open_rollouts)), None)


def _ended_before_start(session: Session, environment: Environment, rollout: Rollout, others: list[Rollout]) -> bool:
    job = job_by_id(session, rollout.job_id)
    if job.cancel_requested_at is not None or job.finished_at is not None:
        end_rollout(session, rollout, "canceled", {"code": "job.canceled", "message": "Canceled while queued."})
        return True
    if (code := _refusal(environment, rollout)) is not None:
        message = f"The environment is {environment.status}."
        end_rollout(session, rollout, "failed", {"code": code, "message": message})
        return True
    if not hosts_for(session, environment):
        message = f"No host carries all of these labels: {', '.join(environment.host_labels)}."
        end_rollout(session, rollout, "failed", {"code": "host.none_fits", "message": message})
        return True
    if rollout.kind in ABOUT_WHAT_RUNS and environment.active_release_id is None:
        end_rollout(session, rollout, "failed", {"code": "release.none", "message": "Nothing runs there."})
        return True
    newer = newer_of_branch(session, rollout, others)
    if newer is None:
        return False
    error = {"code": "job.superseded", "message": f"Deployment {newer.id} was accepted later and has taken its place."}
    end_rollout(session, rollout, "superseded", error, superseded_by=newer.job_id)
    return True


def _refusal(environment: Environment, rollout: Rollout) -> str | None:
    """Why its environment does not take a rollout: only a resume goes onto a suspended one, and nowhere else.

    A suspension does once more where a host was away when the others got it.
    """
    match environment.status, rollout.kind:
        case ("suspended", "resume" | "suspend") | ("provisioning", _):
            return None
        case "suspended", _:
            return "environment.suspended"
        case "active", "resume":
            return "environment.not_suspended"
        case "active", _:
            return None
    return "environment.not_active"


def newer_of_branch(session: Session, rollout: Rollout, others: list[Rollout] | None = None) -> Rollout | None:
    """What was accepted later and takes the place of a build-then-deploy, if anything does.

    The same branch's while it is queued, running or has succeeded, and of two that are held the later one; what
    somebody asked for by name (a deploy of an artifact, a promote, a rollback) once it has succeeded: a build that ends
    late does not undo a rollback.
    """
    if rollout.branch is None:
        return None
    going = ("queued", "running", "held") if rollout.status == "held" else ("queued", "running")
    alive = [
        r
        for r in others or []
        if r.branch == rollout.branch and r.accept_seq > rollout.accept_seq and r.status in going
    ]
    if alive:
        return max(alive, key=lambda r: r.accept_seq)
    return session.exec(
        select(Rollout)
        .where(
            Rollout.env_id == rollout.env_id,
            or_(col(Rollout.branch) == rollout.branch, col(Rollout.branch).is_(None)),
            Rollout.status == "succeeded",
            col(Rollout.kind).not_in(ABOUT_WHAT_RUNS),
            Rollout.accept_seq > rollout.accept_seq,
        )
        .order_by(col(Rollout.accept_seq).desc())
    ).first()


def _take(session: Session, environment: Environment, rollout: Rollout) -> Rollout:
    environment.fence_seq += 2
    rollout.apply_seq, rollout.undo_seq = environment.fence_seq - 1, environment.fence_seq
    rollout.status, rollout.stage, rollout.started_at = "running", "verify", utcnow()
    rollout.previous_release_id = environment.active_release_id
    if rollout.kind in ABOUT_WHAT_RUNS:
        runs = session.get_one(Release, environment.active_release_id)
        rollout.artifact_id, rollout.source_release_id, rollout.ref = runs.artifact_id, runs.id, runs.ref
    if rollout.instances is None:
        rollout.instances = environment.instances
    rollout.hosts = hosts_for(session, environment)
    freeze(session, rollout)
    conclude(session, rollout)
    job = job_by_id(session, rollout.job_id)
    if job.type in ROLL_JOBS:
        job.status, job.started_at = "running", utcnow()
    job.stage, job.rev = "verify", job.rev + 1
    note_job(session, job)
    return rollout


def lock_rollout(session: Session, rollout_id: str) -> Rollout:
    """For whoever may lock its environment, too: that comes first, as with a claim."""
    rollout = session.get_one(Rollout, rollout_id)
    session.get(Environment, rollout.env_id, with_for_update=True)
    session.refresh(rollout, with_for_update=True)
    return rollout


def ready_rollout(session: Session, rollout_id: str, artifact_id: str) -> Rollout:
    """A build-then-deploy has its artifact: its rollout joins the queue. Idempotent."""
    rollout = session.get(Rollout, rollout_id, with_for_update=True)
    if rollout is None:
        raise HeadwayError("deployment.not_found", f"There is no deployment {rollout_id}.")
    if rollout.status == "waiting":
        rollout.status, rollout.artifact_id = "queued", artifact_id
    return rollout


def commit_rollout(session: Session, rollout_id: str, *, by: str | None = None) -> Rollout:
    """The point of no return, in one transaction with the look at the cancel flag.

    `by` is the host that asks: of several none passes it alone, the control worker does. Raises job.canceled if a
    cancel came first, job.lost if the rollout is no longer running, deployment.not_found.
    """
    rollout = session.get(Rollout, rollout_id, with_for_update=True)
    if rollout is None:
        raise HeadwayError("deployment.not_found", f"There is no deployment {rollout_id}.")
    if by is not None and hosts_of(session, rollout) != [by]:
        raise HeadwayError("deployment.not_found", f"There is no deployment {rollout_id} for the host {by} alone.")
    job = job_by_id(session, rollout.job_id)
    if rollout.status != "running":
        raise HeadwayError("job.lost", f"Deployment {rollout_id} has ended already ({rollout.status}).")
    environment = session.get(Environment, rollout.env_id)
    if environment is None or environment.status in ("deleting", "gone"):
        raise HeadwayError("job.canceled", "The environment is being deleted.")
    if job.committed_at is None:
        if job.cancel_requested_at is not None:
            raise HeadwayError("job.canceled", "Canceled before the switch: what was live still is.")
        job.committed_at, job.stage, job.progress, job.rev = utcnow(), "switch", max(job.progress, 80), job.rev + 1
        rollout.stage = "switch"
    return rollout


def begin_bake(session: Session, rollout_id: str) -> None:
    """The rollout has switched and is watched. Raises job.canceled where somebody waits who would end that at once."""
    rollout = _running(session, rollout_id)
    job = job_by_id(session, rollout.job_id)
    waits = select(Rollout.id).where(
        Rollout.env_id == rollout.env_id, Rollout.status == "queued", col(Rollout.kind).in_(ENDS_BAKE)
    )
    if session.exec(waits).first() is not None:
        raise HeadwayError("job.canceled", "What was accepted meanwhile does not wait for the end of a bake.")
    rollout.stage = job.stage = "bake"
    job.progress, job.rev = max(job.progress, 85), job.rev + 1


def keep_bake(session: Session, rollout_id: str, measured: list[Json]) -> None:
    """What the hosts saw: the job's result shows it, however it ends."""
    _running(session, rollout_id).bake = {"hosts": measured}


def _running(session: Session, rollout_id: str) -> Rollout:
    rollout = session.get(Rollout, rollout_id, with_for_update=True)
    if rollout is None or rollout.status != "running":
        raise HeadwayError("job.lost", f"Deployment {rollout_id} is not carried out any more.")
    return rollout


def preempt(session: Session, env_id: str) -> Rollout | None:
    """What a waiting rollback cancels: the running rollout, if that has not reached its switch or is only watched.

    A waiting suspension cancels what is watched.
    """
    rollouts = session.exec(select(Rollout).where(Rollout.env_id == env_id, col(Rollout.finished_at).is_(None))).all()
    running = next((r for r in rollouts if r.status == "running" and r.kind != "rollback"), None)
    waiting = {r.kind for r in rollouts if r.status == "queued"}
    if running is None or waiting.isdisjoint(ENDS_BAKE):
        return None
    job = job_by_id(session, running.job_id)
    if running.stage != "bake" and (job.committed_at is not None or "rollback" not in waiting):
        return None
    if job.cancel_requested_at is None:
        job.cancel_requested_at, job.rev = utcnow(), job.rev + 1
    return running


def idle_queues(session: Session, *, limit: int = 50) -> list[str]:
    """Environments with queued rollouts and none running: nobody may have told the first of them."""
    queued = select(Rollout.env_id).where(Rollout.status == "queued").distinct().limit(limit)
    running = select(Rollout.env_id).where(Rollout.status == "running")
    return list(session.exec(queued.where(col(Rollout.env_id).not_in(running))).all())


def unseen_holds(session: Session, before: datetime, *, limit: int = 50) -> Sequence[Rollout]:
    """Held rollouts at which nobody has looked since then: their runs may be gone."""
    query = (
        select(Rollout)
        .join(Decision, col(Decision.rollout_id) == Rollout.id)
        .where(Rollout.status == "held", col(Decision.judged_at) < before)
    )
    return session.exec(query.order_by(col(Decision.judged_at)).limit(limit)).all()


def cancel_queued_builds(session: Session, site_id: str) -> None:
    """End what a deleted site had waiting."""
    builds = session.exec(select(Build).where(Build.site_id == site_id, Build.status == "queued")).all()
    for build in builds:
        error = {"code": "job.canceled", "message": "The site was deleted."}
        end_build(session, build, "canceled", error)
        end_job(session, job_by_id(session, build.job_id), "canceled", error=error)
