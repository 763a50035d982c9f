"""Where the logs of ended jobs lie, once they have left the events' folder."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlmodel import Session, col, select

from store.models import Job
from store.models_builds import JobLog


def log_key(team_id: str, job_id: str) -> str:
    return f"logs/{team_id}/{job_id}.jsonl.zst"


def log_of(session: Session, job_id: str) -> JobLog | None:
    return session.get(JobLog, job_id)


def ended_unkept(session: Session, job_ids: Iterable[str], before: datetime) -> list[tuple[str, str]]:
    """Of these jobs those that ended before `before` and whose log is not kept yet: (job, team)."""
    query = select(Job.id, Job.team_id).where(col(Job.id).in_(list(job_ids)), col(Job.finished_at) < before)
    return list(session.exec(query.where(col(Job.id).not_in(select(JobLog.job_id)))))


def kept(session: Session, job_ids: Iterable[str]) -> set[str]:
    return set(session.exec(select(JobLog.job_id).where(col(JobLog.job_id).in_(list(job_ids)))))


def record_log(session: Session, row: JobLog) -> None:
    """Idempotent."""
    session.merge(row)


def forget_log(session: Session, job_id: str) -> str | None:
    """The key of its object, which is nobody's now."""
    row = session.get(JobLog, job_id)
    if row is not None:
        session.delete(row)
    return row.key if row is not None else None
