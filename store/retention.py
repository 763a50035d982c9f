"""What may be forgotten: ended jobs past their time, unless what they made still runs somewhere; old drifts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import delete
from sqlmodel import Session, col, or_, select

from store import collection, sandbox_collection
from store.execs import TYPE as COMMAND
from store.execs import result_key
from store.models import Build, Job, Release, Rollout
from store.models_lifecycle import Drift
from store.models_retention import Doomed


def forget_jobs(session: Session, before: datetime, *, limit: int = 100) -> list[str]:
    """Delete the rows of jobs that ended before `before`; their ids, oldest first, at most `limit`.

    Kept: jobs whose build or rollout made a release that is still current, so that what runs stays explained
    (contract section 8, retention). Builds, rollouts, artifacts and releases themselves stay.
    """
    current = select(Release.artifact_id).where(col(Release.current))
    kept = or_(
        col(Job.id).in_(select(Build.job_id).where(col(Build.artifact_id).in_(current))),
        col(Job.id).in_(
            select(Rollout.job_id).join(Release, col(Release.rollout_id) == col(Rollout.id)).where(col(Release.current))
        ),
    )
    ended = select(Job).where(col(Job.finished_at) < before, ~kept).order_by(col(Job.finished_at)).limit(limit)
    jobs = session.exec(ended).all()
    for job in jobs:
        if job.type == COMMAND:
            session.merge(Doomed(site_id=job.team_id, key=result_key(job.team_id, job.id)))
        session.delete(job)
    return [job.id for job in jobs]


def forget_drifts(session: Session, before: datetime) -> None:
    """Delete what hosts found and mended before `before`."""
    session.execute(delete(Drift).where(col(Drift.mended_at) < before))


def totals(session: Session) -> dict[str, Any]:
    """What there is to tell an operator at any time."""
    return {**collection.totals(session), **sandbox_collection.totals(session)}
