"""Events of a job: progress into the rows, every line into the job's log."""

from __future__ import annotations

import re
from typing import Final

from sqlmodel import Session, select

from api.events import EventLog
from headway.broker import Events, Heard
from headway.errors import HeadwayError
from store.commands import TYPE as COMMAND
from store.execs import TYPE
from store.fleet import hosts_of
from store.jobs import note_progress
from store.models import Build, Job, Rollout
from store.session import Store

# A builder's source names its build (or a command's job) and attempt, so that a stale one is not heard.
_BUILD: Final = re.compile(r"(build_[0-9A-Za-z]+)/(\d{1,9})")


class Telling:
    def __init__(self, store: Store, log: EventLog) -> None:
        self.store = store
        self.log = log

    def hear(self, role: str, job_id: str, body: Events, host_id: str = "") -> Heard:
        """Rows first: a sender that is cut off sends again, and both steps take a repetition well."""
        with self.store.read() as session:
            job = session.get(Job, job_id)
            if job is None:
                raise HeadwayError("job.not_found", f"There is no job {job_id}.")
            if role == "builder":
                _check_attempt(session, job, body.source)
            elif role == "host" and not _is_rolled_out(session, job, host_id):
                raise HeadwayError("job.not_found", f"No host has a part in the job {job_id}.")
        stages = [event for event in body.events if event.kind != "log"]
        if stages and job.finished_at is None:
            stage = next((event.stage for event in reversed(stages) if event.stage), None)
            progress = max((event.progress for event in stages if event.progress is not None), default=None)
            self.store.in_write(lambda session: note_progress(session, job_id, stage, progress))
        self.log.append(job_id, body.source, body.first, body.events)
        return Heard(cancel=job.cancel_requested_at is not None or job.status in ("canceled", "failed"))


def subject_of(source: str) -> str:
    """What a builder has to have begun to speak as that source."""
    return source.partition("/")[0]


def _is_rolled_out(session: Session, job: Job, host_id: str) -> bool:
    """By that host; a command is run by the one that began it."""
    if job.type == COMMAND:
        return (job.input or {}).get("host_id") == host_id
    rollout = session.exec(select(Rollout).where(Rollout.job_id == job.id)).first()
    return rollout is not None and host_id in hosts_of(session, rollout)


def _check_attempt(session: Session, job: Job, source: str) -> None:
    if job.type == TYPE:
        if source != f"{job.id}/{(job.input or {}).get('attempt')}":
            raise HeadwayError("attempt.stale", f"The command {job.id} has ended, or a later attempt has taken over.")
        return
    named = _BUILD.fullmatch(source)
    build = session.get(Build, named[1]) if named is not None else None
    if named is None or build is None or build.job_id != job.id:
        raise HeadwayError("job.not_found", f"The job {job.id} is not that build's.")
    if int(named[2]) != build.attempt:
        raise HeadwayError("attempt.stale", f"Attempt {build.attempt} has taken over from attempt {named[2]}.")
