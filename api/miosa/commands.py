"""Commands in sandboxes: a job on a builder, on a copy of the tree; what it changed is the sandbox's afterwards."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any, Final

import anyio
from fastapi import APIRouter
from sqlmodel import Session
from starlette.responses import Response

from api.idempotency import Once
from api.miosa.answers import AnyRow
from api.miosa.call import Call, KeyedDep
from api.miosa.document import gives, gives_raw
from api.miosa.freezing import Taken, keep_snapshot, take
from api.miosa.paths import workspace_path
from api.miosa.problems import error_body
from api.miosa.sandboxes import WRITE, S, sandbox_of
from api.miosa.schemas import Exec
from api.miosa.values import without_values
from api.streams import PING, as_events, frame
from headway.errors import HeadwayError
from store.execs import accept_exec, result_key
from store.models import Job
from store.sandboxes import check_folder

router = APIRouter(tags=["commands"])
Json = dict[str, Any]
MOST: Final = 4 << 20
# Seconds that a command may wait for a builder, on top of its own time.
QUEUE: Final = 60


async def _start(call: Call, sandbox_id: str, body: Exec) -> Job:
    """Freeze the tree, accept the job, start it."""
    once = call.once(without_values(body))
    if (known := await call.known(once)) is not None:
        return known

    def look(session: Session) -> Taken:
        found = sandbox_of(call, session, sandbox_id, WRITE, lock=True)
        check_folder(session, found.id, cwd)
        return take(call, session, found, "", lambda path: ".git" in path.split("/"))

    cwd = workspace_path(body.cwd or "/workspace", folder=True)
    digest = await keep_snapshot(call, await call.write(look))
    request = {"command": body.command, "cwd": cwd, "env": body.env or {}, "timeout": body.timeout, "sha256": digest}

    def work(session: Session, once: Once) -> list[Job]:
        found = sandbox_of(call, session, sandbox_id, WRITE)
        once.claim(session)
        return [accept_exec(session, found, request, call.caller.actor)]

    return (await call.accept(once, work))[0]


@router.post(S + "/exec", **gives(AnyRow, "Run a command in the sandbox, and wait for its end"))
async def run_command(call: KeyedDep, sandbox_id: str, body: Exec) -> Response:
    job = await _start(call, sandbox_id, body)
    job = await call.end_of(job, patience=body.timeout + QUEUE)
    return call.one(await _result(call, job))


async def _result(call: Call, job: Job) -> Json:
    """Raises what ended a command that never came to an exit code."""
    if job.status != "succeeded":
        waiting = {"code": "service.unavailable", "message": f"The command {job.id} has not come to its end yet."}
        raise HeadwayError.from_dict(job.error or waiting)
    raw = await anyio.to_thread.run_sync(call.parts.objects.get, result_key(job.team_id, job.id), MOST)
    return {"operation_id": job.id, **json.loads(raw), **(job.result or {})}


@router.post(
    S + "/exec/stream", **gives_raw("Run a command: stdout and stderr by lines, then exit", "text/event-stream")
)
async def stream_command(call: KeyedDep, sandbox_id: str, body: Exec) -> Response:
    job = await _start(call, sandbox_id, body)
    return as_events(call, _frames(call, job))


async def _frames(call: Call, job: Job) -> AsyncGenerator[bytes, None]:
    reader = call.parts.events.reader(job.id)
    async with call.parts.watch.on(job.id, 0) as subscription:
        while True:
            now = await call.read(lambda session: session.get_one(Job, job.id))
            while lines := await anyio.to_thread.run_sync(reader.read):
                for line in lines:
                    if line["k"] == "log" and line["stream"] in ("stdout", "stderr"):
                        yield frame(line["stream"], {"line": line["line"], "data": line["line"] + "\n"}, line["n"])
            if now.finished_at is not None:
                yield _last(now)
                return
            if call.parts.watch.closing:
                return
            if not await subscription.wait(PING):
                yield b": ping\n\n"


def _last(job: Job) -> bytes:
    if job.status == "succeeded":
        return frame("exit", job.result or {})
    waiting = {"code": "service.unavailable", "message": "The command has not come to its end."}
    error = error_body(HeadwayError.from_dict(job.error or waiting), "")["error"]
    return frame("error", {name: error[name] for name in ("code", "message")}) + frame("exit", {"exit_code": 1})
