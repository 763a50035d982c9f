"""Operations: the engine's jobs, under this dialect's names. Publish names its own in `operation_id`."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header
from sqlmodel import Session, select
from sqlmodel.sql.expression import SelectOfScalar
from starlette.responses import Response

from api.idempotency import Once
from api.miosa import names
from api.miosa.answers import OperationRow
from api.miosa.call import Call, CallDep, KeyedDep, PagingDep
from api.miosa.deployments import READ, WRITE
from api.miosa.document import gives, gives_raw, lists
from api.miosa.problems import error_body
from api.miosa.rows import stamp
from api.miosa.schemas import Nothing
from api.preferences import number_of
from api.streams import JobStream, as_events
from headway.errors import HeadwayError
from store import jobs
from store.models import Job

router = APIRouter(tags=["operations"])
Json = dict[str, Any]
OPERATION: Final = "/operations/{operation_id}"
TYPES: Final = {
    "site.create": "deployment.create",
    "site.delete": "deployment.delete",
    "build.run": "deployment.build",
    "deployment.push": "deployment.publish",
    "deployment.roll": "deployment.promote",
    "deployment.promote": "deployment.promote",
    "deployment.rollback": "deployment.rollback",
    "deployment.stop": "deployment.stop",
    "sandbox.exec": "sandbox.exec",
}


def operation_row(job: Job) -> Json:
    named = {"deployment_id": names.shown_or_none(job.site_id), "environment_id": job.env_id}
    error = error_body(HeadwayError.from_dict(job.error), "")["error"] if job.error else None
    state = "cancelled" if job.status == "canceled" else job.status
    return {
        "id": job.id,
        "tenant_id": job.team_id,
        "type": TYPES.get(job.type, job.type),
        "state": state,
        "status": state,
        "stage": job.stage,
        "progress": job.progress,
        **named,
        "error": {key: error[key] for key in ("code", "message", "details")} if error else None,
        "cancel_requested": job.cancel_requested_at is not None,
        "created_at": stamp(job.created_at),
        "started_at": stamp(job.started_at),
        "finished_at": stamp(job.finished_at),
    }


def _job(call: Call, session: Session, operation_id: str, *, lock: bool = False) -> Job:
    found = jobs.job(session, call.sight, operation_id, lock=lock)
    call.caller.require(_scope(found, READ))
    return found


def _scope(job: Job, scope: str) -> str:
    """A command is of its sandbox: whoever may run one may follow and cancel it, and nobody else."""
    return scope.replace("deployments", "sandboxes") if job.resource_type == "sandbox" else scope


@router.get("/operations", **lists(OperationRow, "List operations"))
async def list_operations(call: CallDep, paging: PagingDep) -> Response:
    call.caller.require(READ)

    def query(_session: Session) -> SelectOfScalar[Job]:
        return select(Job).where(*call.sight.jobs())

    return await call.listed(
        paging, query, lambda _session, rows: [*map(operation_row, rows)], time=Job.created_at, id=Job.id
    )


@router.get(OPERATION, **gives(OperationRow, "Get an operation"))
async def get_operation(call: CallDep, operation_id: str) -> Response:
    return call.one(await call.read(lambda session: operation_row(_job(call, session, operation_id))))


@router.get(OPERATION + "/events", **gives_raw("Follow an operation: job, log, end", "text/event-stream"))
async def follow_operation(
    call: CallDep, operation_id: str, last_event_id: Annotated[str | None, Header()] = None
) -> Response:
    job, parts = await call.read(lambda session: _job(call, session, operation_id)), call.parts
    after = number_of(last_event_id)
    stream = JobStream(parts.store, parts.events, parts.watch, job, operation_row, after=after)
    return as_events(call, stream.frames())


@router.post(OPERATION + "/cancel", **gives(OperationRow, "Cancel what has not switched anything yet"))
async def cancel_operation(call: KeyedDep, operation_id: str, _body: Nothing | None = None) -> Response:
    def work(session: Session, once: Once) -> Job:
        job = _job(call, session, operation_id, lock=True)
        call.caller.require_change(_scope(job, WRITE), site_id=job.site_id, env_id=job.env_id)
        once.claim(session)
        return jobs.cancel_job(session, job)

    once = call.without_key().once(None)
    job = await call.write(lambda session: work(session, once))
    call.parts.watch.poke(job.id)
    await call.parts.starts.cancel(job.id)
    return call.one(operation_row(job))
