"""What follows from something that was heard of a remote repository, after the commit."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session

from api.starting import Starts
from store.arrivals import Judged
from store.labels import labels_of_job
from store.models import Job
from temporal.messages import Labels


@dataclass(frozen=True)
class Work:
    starts: tuple[tuple[Job, Labels], ...] = ()
    canceled: tuple[str, ...] = ()


def work_of(session: Session, judged: Judged | None) -> Work:
    """To be taken along out of the transaction."""
    if judged is None:
        return Work()
    session.flush()
    starts = tuple((job, labels_of_job(session, job)) for job in judged.starts)
    return Work(starts, tuple(job.id for job in judged.canceled))


async def follow(starts: Starts, work: Work) -> None:
    """Where Temporal is away the outbox does it later."""
    for job_id in work.canceled:
        await starts.cancel(job_id)
    for job, labels in work.starts:
        await starts.start(job.id, job.type, labels=labels)
