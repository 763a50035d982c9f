"""Commands in sandboxes, as jobs: what is asked, which attempt counts, how it ended."""

from __future__ import annotations

from typing import Any, Final

from sqlmodel import Session

from headway.errors import HeadwayError
from headway.ids import new_id
from store.models import Job
from store.models_sandboxes import Sandbox
from store.outcomes import end_job

Json = dict[str, Any]
TYPE: Final = "sandbox.exec"


def result_key(team_id: str, job_id: str) -> str:
    """Where what a command printed lies in the object store."""
    return f"sandboxes/{team_id}/execs/{job_id}.json"


def accept_exec(session: Session, found: Sandbox, request: Json, actor: Json) -> Job:
    """`request`: `{command, cwd, env, timeout, sha256}`; it is forgotten with the job's end."""
    job = Job(
        id=new_id("job"),
        team_id=found.team_id,
        type=TYPE,
        resource_type="sandbox",
        resource_id=found.id,
        resource={},
        input={**request, "attempt": 0},
        actor=actor,
    )
    session.add(job)
    return job


def begin_exec(session: Session, job_id: str) -> Job:
    """The next attempt. Raises job.not_found, job.canceled or attempt.stale."""
    job = _open(session, job_id)
    job.input = {**(job.input or {}), "attempt": (job.input or {}).get("attempt", 0) + 1}
    session.flush()
    return job


def require_exec(session: Session, job_id: str, attempt: int) -> Job:
    """Raises attempt.stale where a later attempt has taken over, and as `begin_exec`."""
    job = _open(session, job_id)
    if (job.input or {}).get("attempt") != attempt:
        raise HeadwayError("attempt.stale", "A later attempt has taken over.")
    return job


def end_exec(session: Session, job: Job, result: Json) -> None:
    end_job(session, job, "succeeded", result=result)
    job.input = None


def _open(session: Session, job_id: str) -> Job:
    job = session.get(Job, job_id, with_for_update=True)
    if job is None or job.type != TYPE:
        raise HeadwayError("job.not_found", f"There is no command {job_id}.")
    if job.finished_at is not None:
        raise HeadwayError("attempt.stale", f"The command {job_id} has ended: {job.status}.")
    if job.cancel_requested_at is not None:
        raise HeadwayError("job.canceled", f"The command {job_id} was canceled.")
    return job
