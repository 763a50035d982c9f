"""Sandboxes: mutable trees to publish from (contract section 9)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar
from starlette.responses import Response, StreamingResponse

from api.idempotency import Once
from api.miosa.answers import AnyRow, SandboxRow
from api.miosa.call import Call, CallDep, KeyedDep, PagingDep
from api.miosa.deployments import EXTERNAL, Filter, ownership
from api.miosa.document import gives, gives_raw, lists
from api.miosa.rows import sandbox_row
from api.miosa.schemas import Nothing, SandboxCreate, SandboxUpdate
from api.miosa.values import without_values
from api.streams import frame
from store import sandboxes
from store.models import Project
from store.models_sandboxes import Sandbox
from store.sandbox_env import keep_env
from store.sandboxes import SandboxRequest
from store.workspaces import owner_of

router = APIRouter(tags=["sandboxes"])
Json = dict[str, Any]
READ: Final = "sandboxes:read"
WRITE: Final = "sandboxes:write"
S: Final = "/sandboxes/{sandbox_id}"
TEMPLATE: Final = "miosa-sandbox"


def sandbox_of(call: Call, session: Session, sandbox_id: str, scope: str = READ, *, lock: bool = False) -> Sandbox:
    """404 before 403."""
    found = sandboxes.sandbox(session, call.sight, call.team_id, sandbox_id, lock=lock)
    call.caller.require(scope)
    return found


def shown(session: Session, rows: Sequence[Sandbox]) -> list[Json]:
    ids = [row.project_id for row in rows]
    projects = {row.id: row for row in session.exec(select(Project).where(col(Project.id).in_(ids))).all()}
    return [sandbox_row(row, projects.get(row.project_id)) for row in rows]


@router.post("/sandboxes", **gives(SandboxRow, "Make a sandbox; it is ready at once", 201))
async def create_sandbox(call: KeyedDep, body: SandboxCreate | None = None) -> Response:
    given = body or SandboxCreate()

    def work(session: Session, once: Once) -> tuple[Json, Json]:
        call.caller.require(WRITE)
        once.claim(session)
        owner = owner_of(session, call.sight, call.team_id, ownership(given))
        made = sandboxes.make_sandbox(session, owner, _wanted(given), call.caller.actor, call.parts.sandboxes)
        keep_env(session, call.parts.vault, made.id, given.env or {})
        row = shown(session, [made])[0]
        return row, row

    return await call.create(without_values(given), work)


def _wanted(given: SandboxCreate) -> SandboxRequest:
    return SandboxRequest(
        name=given.name.strip() if given.name else None,
        template_id=given.template_id or given.template or given.image or TEMPLATE,
        labels=given.metadata or {},
        tags={"tags": given.tags} if given.tags else None,
        idle_timeout_sec=given.idle_timeout_sec,
        **{name: getattr(given, name) for name in EXTERNAL},
    )


@router.get("/sandboxes", **lists(SandboxRow, "List sandboxes"))
async def list_sandboxes(
    call: CallDep,
    paging: PagingDep,
    state: Annotated[str | None, Query(max_length=40)] = None,
    tags: Filter = None,
    external_workspace_id: Filter = None,
    external_user_id: Filter = None,
    external_project_id: Filter = None,
) -> Response:
    call.caller.require(READ)
    filters = dict(zip(EXTERNAL, (external_workspace_id, external_user_id, external_project_id), strict=True))

    def query(_session: Session) -> SelectOfScalar[Sandbox]:
        found = sandboxes.living(call.sight, call.team_id)
        for name, value in filters.items():
            if value is not None:
                found = found.where(col(getattr(Sandbox, name)) == value)
        for tag in (tags or "").split(","):
            if tag.strip():
                found = found.where(col(Sandbox.tags)["tags"].as_string().contains(f'"{tag.strip()}"', autoescape=True))
        return found.where(Sandbox.state == state) if state is not None else found

    return await call.listed(paging, query, shown, time=Sandbox.created_at, id=Sandbox.id)


@router.get("/sandboxes/by-name/{name}", **gives(SandboxRow, "Get a sandbox by its name"))
async def get_sandbox_by_name(call: CallDep, name: str) -> Response:
    def work(session: Session) -> Json:
        found = sandboxes.sandbox_by_name(session, call.sight, call.team_id, name)
        call.caller.require(READ)
        return shown(session, [found])[0]

    return call.one(await call.read(work))


@router.get(S, **gives(SandboxRow, "Get a sandbox"))
async def get_sandbox(call: CallDep, sandbox_id: str) -> Response:
    return call.one(await call.read(lambda session: shown(session, [sandbox_of(call, session, sandbox_id)])[0]))


@router.patch(S, **gives(SandboxRow, "Change a sandbox's name, metadata, tags or idle time"))
async def update_sandbox(call: CallDep, sandbox_id: str, body: SandboxUpdate | None = None) -> Response:
    given = body.model_dump(exclude_unset=True) if body is not None else {}

    def work(session: Session) -> Json:
        found = sandbox_of(call, session, sandbox_id, WRITE, lock=True)
        _change(session, found, given)
        sandboxes.touch(found, call.parts.sandboxes)
        session.flush()
        return shown(session, [found])[0]

    return call.one(await call.write(work))


def _change(session: Session, found: Sandbox, given: Json) -> None:
    """Raises sandbox.name_taken."""
    if given.get("name") and given["name"] != found.name:
        sandboxes.check_name(session, found.team_id, given["name"])
        found.name = given["name"]
    if "metadata" in given:
        found.labels = given["metadata"]
    if "tags" in given:
        found.tags = {"tags": given["tags"] or []}
    if "idle_timeout_sec" in given:
        found.idle_timeout_sec = given["idle_timeout_sec"]


@router.delete(S, **gives(SandboxRow, "Destroy a sandbox; what was published from it stays"))
async def destroy_sandbox(call: CallDep, sandbox_id: str, _body: Nothing | None = None) -> Response:
    def work(session: Session) -> Json:
        found = sandbox_of(call, session, sandbox_id, WRITE, lock=True)
        sandboxes.destroy(session, found)
        session.flush()
        return shown(session, [found])[0]

    return call.one(await call.write(work))


async def _renewed(call: Call, sandbox_id: str) -> Response:
    def work(session: Session) -> Json:
        found = sandbox_of(call, session, sandbox_id, WRITE, lock=True)
        sandboxes.touch(found, call.parts.sandboxes)
        session.flush()
        return shown(session, [found])[0]

    return call.one(await call.write(work))


@router.post(S + "/extend", **gives(SandboxRow, "Start a sandbox's idle time again"))
async def extend_sandbox(call: KeyedDep, sandbox_id: str, _body: Nothing | None = None) -> Response:
    return await _renewed(call, sandbox_id)


@router.post(S + "/resume", **gives(SandboxRow, "A sandbox always runs: as extend"))
async def resume_sandbox(call: KeyedDep, sandbox_id: str, _body: Nothing | None = None) -> Response:
    return await _renewed(call, sandbox_id)


@router.get(S + "/readiness", **gives(AnyRow, "Whether a sandbox takes files and commands: it does, from the start"))
async def sandbox_readiness(call: CallDep, sandbox_id: str) -> Response:
    found = await call.read(lambda session: sandbox_of(call, session, sandbox_id))
    return call.one(_ready(found))


@router.get(S + "/readiness/stream", **gives_raw("The same as an event", "text/event-stream"))
async def sandbox_readiness_stream(call: CallDep, sandbox_id: str) -> Response:
    found = await call.read(lambda session: sandbox_of(call, session, sandbox_id))

    async def frames() -> AsyncIterator[bytes]:
        yield frame("ready", _ready(found))

    return StreamingResponse(frames(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def _ready(found: Sandbox) -> Json:
    return {
        "id": found.id,
        "sandbox_id": found.id,
        "ready": True,
        "status": "ready",
        "state": found.state,
        "command_ready": True,
        "commands_ready": True,
        "files_ready": True,
    }


@router.get("/sandbox-templates", **lists(AnyRow, "The templates of sandboxes: there is one"))
async def list_templates(call: CallDep) -> Response:
    rows = [{"id": TEMPLATE, "name": TEMPLATE, "description": "An empty workspace."}]
    return call.whole(rows, default_template_id=TEMPLATE)
