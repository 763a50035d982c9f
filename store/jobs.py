"""Jobs: made with the work's rows in one transaction, read, listed, noted on, canceled."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import bindparam, update
from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from headway.ids import new_id
from store.hostnames import release_hostnames
from store.models import Build, Environment, Job, Rollout, Site, utcnow
from store.outcomes import end_build, end_job
from store.paging import Page, fetch_page
from store.sight import Sight

Json = dict[str, Any]
BUILD_STAGES: Final = {"fetch": 5, "detect": 12, "build": 20, "pack": 70, "sign": 85}
_REVISIONS: Final = select(Job.id, Job.rev).where(col(Job.id).in_(bindparam("ids", expanding=True)))
_UNSTARTED: Final = (
    select(Job)
    .where(
        Job.status == "queued",
        col(Job.finished_at).is_(None),
        col(Job.started_at).is_(None),
        col(Job.waits_for).is_(None),
        col(Job.created_at) < bindparam("before"),
        col(Job.id) > bindparam("after"),
    )
    .order_by(col(Job.id))
)
ROLL_STAGES: Final = {"verify": 10, "place": 30, "start": 55, "health": 65, "switch": 80, "bake": 85, "drain": 95}


def add_job(
    session: Session,
    *,
    site: Site,
    env_id: str | None,
    type: str,
    resource_type: str,
    resource_id: str,
    actor: Json,
    resource: Json,
    input: Json | None = None,
) -> Job:
    """The public face of work that is about to start: `queued`, unclaimed."""
    job = Job(
        id=new_id("job"),
        team_id=site.team_id,
        site_id=site.id,
        env_id=env_id,
        type=type,
        resource_type=resource_type,
        resource_id=resource_id,
        resource=resource,
        input=input,
        actor=actor,
    )
    session.add(job)
    return job


def add_upkeep(session: Session, *, team_id: str, type: str, about: str, input: Json, actor: Json) -> Job:
    """A job of the operator's that concerns no site."""
    job = Job(
        id=new_id("job"),
        team_id=team_id,
        type=type,
        resource_type=about,
        resource_id=about,
        input=input,
        actor=actor,
    )
    session.add(job)
    return job


def job(session: Session, sight: Sight, job_id: str, *, lock: bool = False) -> Job:
    query = select(Job).where(Job.id == job_id, *sight.jobs())
    found = session.exec(query.with_for_update(key_share=True) if lock else query).first()
    if found is None:
        raise HeadwayError("job.not_found", f"There is no job {job_id}.", param="job_id")
    return found


def list_jobs(
    session: Session, sight: Sight, page: Page, *, status: str | None = None, resource_type: str | None = None
) -> tuple[Sequence[Job], bool]:
    query = select(Job).where(*sight.jobs())
    if status is not None:
        query = query.where(Job.status == status)
    if resource_type is not None:
        query = query.where(Job.resource_type == resource_type)
    return fetch_page(session, query, page, time=Job.created_at, id=Job.id)


def revisions(session: Session, job_ids: Sequence[str]) -> dict[str, int]:
    """`rev` of each of these jobs: it grows with every change of the row."""
    rows = session.connection().execute(_REVISIONS, {"ids": list(job_ids)})
    return {row[0]: row[1] for row in rows}


def unstarted(session: Session, before: datetime, after: str, limit: int) -> Sequence[Job]:
    """Queued, unclaimed jobs older than `before` that nothing holds, by their ids, behind the id `after`."""
    return session.exec(_UNSTARTED.limit(limit), params={"before": before, "after": after}).all()


def note_progress(session: Session, job_id: str, stage: str | None, progress: int | None) -> None:
    """A step began, or went on: job, build and rollout say so. Progress never falls; a terminal job keeps its end.

    Past the point of no return a step before it is a word that comes late, and is not gone back to.
    """
    found = session.get(Job, job_id, with_for_update=True)
    if found is None or found.finished_at is not None:
        return
    if found.committed_at is not None and ROLL_STAGES.get(stage or "", 100) < ROLL_STAGES.get(found.stage or "", 0):
        stage = None
    reached = progress if progress is not None else _usual(found.type, stage)
    reached = max(found.progress, min(max(reached, 0), 99))
    if (stage or found.stage, reached) == (found.stage, found.progress):
        return
    found.stage, found.progress, found.rev = stage or found.stage, reached, found.rev + 1
    for table, stages in ((Build, BUILD_STAGES), (Rollout, ROLL_STAGES)):
        if stage in stages:
            session.execute(
                update(table).where(col(table.job_id) == job_id, col(table.finished_at).is_(None)).values(stage=stage)
            )


def _usual(type: str, stage: str | None) -> int:
    """How far a job of this type usually is when the stage begins, in percent."""
    if stage in BUILD_STAGES:
        return BUILD_STAGES[stage] * (6 if type == "deployment.push" else 10) // 10
    if stage in ROLL_STAGES:
        return 60 + ROLL_STAGES[stage] * 4 // 10 if type == "deployment.push" else ROLL_STAGES[stage]
    return 0


def cancel_job(session: Session, job: Job) -> Job:
    """Flag first. Unclaimed: ended at once, with its rows. Running: the flag is for the run to see.

    Raises job.not_cancelable past the point of no return, after the end, and for work that has no way back.
    """
    if job.finished_at is not None:
        raise HeadwayError("job.not_cancelable", f"The job has ended: it is {job.status}.")
    if job.committed_at is not None and job.stage != "bake":
        raise HeadwayError("job.not_cancelable", "The switch has begun: roll back instead.")
    if job.status == "queued":
        _end_unstarted(session, job)
    elif job.resource_type not in ("build", "deployment", "sandbox", "command"):
        raise HeadwayError("job.not_cancelable", f"A running {job.type} cannot be stopped half-way.")
    elif job.cancel_requested_at is None:
        job.cancel_requested_at, job.rev = utcnow(), job.rev + 1
    session.flush()
    return job


def _end_unstarted(session: Session, job: Job) -> None:
    error = {"code": "job.canceled", "message": "Canceled before it started: nothing was changed."}
    job.cancel_requested_at = utcnow()
    for build in session.exec(select(Build).where(Build.job_id == job.id)).all():
        end_build(session, build, "canceled", error)
    for rollout in session.exec(select(Rollout).where(Rollout.job_id == job.id)).all():
        if rollout.finished_at is None:
            rollout.status, rollout.error, rollout.finished_at = "canceled", error, utcnow()
    _undo_acceptance(session, job)
    end_job(session, job, "canceled", error=error)


def _undo_acceptance(session: Session, job: Job) -> None:
    """What the acceptance of a site's or an environment's job changed, put back."""
    given = job.input or {}
    if job.type in ("site.create", "environment.create") and job.env_id:
        environment = session.get_one(Environment, job.env_id)
        environment.status, environment.deleted_at = "gone", utcnow()
        release_hostnames(session, environment.id)
        if job.type == "site.create":
            site = session.get_one(Site, environment.site_id)
            site.status, site.deleted_at = "gone", utcnow()
    for env_id, status in given.get("environments", {}).items():
        session.get_one(Environment, env_id).status = status
    if job.type == "site.delete" and job.site_id:
        session.get_one(Site, job.site_id).status = given.get("site", "active")
