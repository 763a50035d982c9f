"""What may be forgotten: ended jobs past their time, unless what they made still runs somewhere."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Session, col, or_, select

from store.models import Build, Job, Release, Rollout


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
        session.delete(job)
    return [job.id for job in jobs]
