"""Workspaces and projects: who deployments and sandboxes belong to (contract sections 1.8 and 10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar
from starlette.responses import Response

from api.idempotency import Once, Replay
from api.miosa.answers import ProjectRow, WorkspaceRow
from api.miosa.call import Call, CallDep, KeyedDep, PagingDep
from api.miosa.deployments import Filter
from api.miosa.document import gives, lists
from api.miosa.rows import stamp
from api.miosa.schemas import Move, ProjectCreate, ProjectUpdate, WorkspaceCreate, WorkspaceUpdate
from headway.errors import HeadwayError
from store import projects, workspaces
from store.models import Project, Site, utcnow
from store.models_sandboxes import Sandbox
from store.models_workspaces import Workspace
from store.workspaces import Ownership, owner_of, workspace_id_of

router = APIRouter(tags=["workspaces"])
Json = dict[str, Any]
READ: Final = "sites:read"
WRITE: Final = "sites:write"
W: Final = "/workspaces/{workspace_id}"
P: Final = "/projects/{project_id}"


def workspace_row(found: Workspace) -> Json:
    return {
        "id": found.id,
        "tenant_id": found.team_id,
        "name": found.name,
        "slug": found.slug,
        "description": (found.labels or {}).get("description"),
        "is_default": found.is_default,
        "default": found.is_default,
        "external_workspace_id": found.external_workspace_id,
        "metadata": (found.labels or {}).get("metadata") or {},
        "status": "active",
        "created_at": stamp(found.created_at),
        "updated_at": stamp(found.updated_at or found.created_at),
    }


def project_row(found: Project) -> Json:
    return {
        "id": found.id,
        "tenant_id": found.team_id,
        "workspace_id": workspace_id_of(found),
        "name": found.name,
        "slug": found.slug,
        "description": found.description,
        "is_default": found.is_default,
        "external_project_id": found.external_project_id,
        "metadata": found.labels or {},
        "created_at": stamp(found.created_at),
        "updated_at": stamp(found.created_at),
    }


def _workspace(call: Call, session: Session, workspace_id: str) -> Workspace:
    return workspaces.workspace_in_sight(session, call.sight, call.team_id, workspace_id)


def _may_change(call: Call) -> None:
    """Whoever is limited to a part of the organisation changes nothing above it."""
    call.caller.require_change(WRITE)
    if call.sight.project_ids is not None:
        raise HeadwayError("role.insufficient", "This key is limited to some projects.")


@router.get("/workspaces", **lists(WorkspaceRow, "List workspaces"))
async def list_workspaces(call: CallDep, paging: PagingDep, external_workspace_id: Filter = None) -> Response:
    call.caller.require(READ)

    def query(_session: Session) -> SelectOfScalar[Workspace]:
        seen = workspaces.in_sight(call.sight, call.team_id)
        found = select(Workspace).where(Workspace.team_id == call.team_id, col(Workspace.deleted_at).is_(None), *seen)
        if external_workspace_id is not None:
            found = found.where(Workspace.external_workspace_id == external_workspace_id)
        return found

    await call.write(lambda session: workspaces.keep_default(session, call.team_id))
    return await call.listed(
        paging, query, lambda _session, rows: [*map(workspace_row, rows)], time=Workspace.created_at, id=Workspace.id
    )


@router.post("/workspaces", **gives(WorkspaceRow, "Make a workspace, or find the one of that external id", 201, 200))
async def create_workspace(call: KeyedDep, body: WorkspaceCreate) -> Response:
    def work(session: Session, once: Once) -> Json:
        _may_change(call)
        once.claim(session)
        external = body.external_workspace_id
        known = workspaces.workspace_by_external(session, call.team_id, external) if external else None
        row = {**workspace_row(known or _made(call, session, body)), "reused": known is not None}
        once.keep(session, 200, body=row)
        return row

    once = call.once(body)
    try:
        row = await call.write(lambda session: work(session, once))
    except Replay as replay:
        row = replay.body
    return call.one(row, 200 if row["reused"] else 201, reused=row["reused"])


def _made(call: Call, session: Session, body: WorkspaceCreate) -> Workspace:
    return workspaces.make_workspace(
        session,
        call.team_id,
        body.name.strip(),
        slug=body.slug,
        external_id=body.external_workspace_id,
        labels={"description": body.description, "metadata": body.metadata or {}},
        twice=body.allow_duplicate_name,
    )


@router.get(W, **gives(WorkspaceRow, "Get a workspace"))
async def get_workspace(call: CallDep, workspace_id: str) -> Response:
    def work(session: Session) -> Json:
        found = _workspace(call, session, workspace_id)
        call.caller.require(READ)
        return workspace_row(found)

    return call.one(await call.read(work))


@router.patch(W, **gives(WorkspaceRow, "Change a workspace's name, description or metadata"))
async def update_workspace(call: CallDep, workspace_id: str, body: WorkspaceUpdate | None = None) -> Response:
    given = body.model_dump(exclude_unset=True) if body is not None else {}

    def work(session: Session) -> Json:
        workspaces.keep_default(session, call.team_id)
        found = _workspace(call, session, workspace_id)
        _may_change(call)
        if given.get("name") and given["name"] != found.name:
            workspaces.check_name(session, call.team_id, given["name"])
            found.name = given["name"]
        found.labels = {**(found.labels or {}), **{k: given[k] for k in ("description", "metadata") if k in given}}
        found.updated_at = utcnow()
        session.flush()
        return workspace_row(found)

    return call.one(await call.write(work))


@router.delete(W, **gives(WorkspaceRow, "Delete an empty workspace"))
async def delete_workspace(call: CallDep, workspace_id: str) -> Response:
    def work(session: Session) -> Json:
        found = _workspace(call, session, workspace_id)
        _may_change(call)
        workspaces.delete_workspace(session, found)
        return workspace_row(found)

    return call.one(await call.write(work))


@router.get("/projects", tags=["projects"], **lists(ProjectRow, "List projects"))
async def list_projects(call: CallDep, paging: PagingDep, workspace_id: Filter = None) -> Response:
    call.caller.require(READ)

    def query(session: Session) -> SelectOfScalar[Project]:
        found = select(Project).where(Project.team_id == call.team_id, *call.sight.projects())
        if workspace_id is not None:
            home = _workspace(call, session, workspace_id)
            found = found.where(workspaces.belongs_to(home))
        return found

    return await call.listed(
        paging, query, lambda _session, rows: [*map(project_row, rows)], time=Project.created_at, id=Project.id
    )


@router.post("/projects", tags=["projects"], **gives(ProjectRow, "Make a project", 201))
async def create_project(call: KeyedDep, body: ProjectCreate) -> Response:
    def work(session: Session, once: Once) -> tuple[Json, Json]:
        _may_change(call)
        once.claim(session)
        row = project_row(_added(session, workspaces.home_of(session, call.team_id, _home(body)), body))
        return row, row

    return await call.create(body, work)


def _added(session: Session, home: Workspace, body: ProjectCreate) -> Project:
    return workspaces.add_project(
        session,
        home,
        body.name.strip(),
        body.slug or body.name,
        external_id=body.external_project_id,
        description=body.description,
        labels=body.metadata,
    )


def _home(body: ProjectCreate) -> Ownership:
    return Ownership(
        workspace_id=body.workspace_id,
        workspace_slug=body.workspace_slug,
        workspace_name=body.workspace_name,
        external_workspace_id=body.external_workspace_id,
    )


def project_of(call: Call, session: Session, project_id: str, scope: str = READ) -> Project:
    found = projects.project(session, call.sight, project_id)
    if found.team_id != call.team_id:
        raise HeadwayError("project.not_found", f"There is no project {project_id}.")
    call.caller.require(scope)
    return found


@router.get(P, tags=["projects"], **gives(ProjectRow, "Get a project"))
async def get_project(call: CallDep, project_id: str) -> Response:
    return call.one(await call.read(lambda session: project_row(project_of(call, session, project_id))))


@router.get(P + "/summary", tags=["projects"], **gives(ProjectRow, "A project, and how much is in it"))
async def summarize_project(call: CallDep, project_id: str) -> Response:
    def work(session: Session) -> Json:
        found = project_of(call, session, project_id)
        sites, sandboxes = _held(session, found)
        return {**project_row(found), "deployments": len(sites), "sandboxes": len(sandboxes)}

    return call.one(await call.read(work))


def _held(session: Session, found: Project) -> tuple[Sequence[str], Sequence[str]]:
    """The living deployments and sandboxes of a project."""
    sites = select(Site.id).where(Site.project_id == found.id, col(Site.deleted_at).is_(None))
    sandboxes = select(Sandbox.id).where(Sandbox.project_id == found.id, col(Sandbox.destroyed_at).is_(None))
    return session.exec(sites).all(), session.exec(sandboxes).all()


@router.patch(P, tags=["projects"], **gives(ProjectRow, "Change a project's name, description or metadata"))
async def update_project(call: CallDep, project_id: str, body: ProjectUpdate | None = None) -> Response:
    given = body.model_dump(exclude_unset=True) if body is not None else {}

    def work(session: Session) -> Json:
        found = project_of(call, session, project_id, WRITE)
        _may_change(call)
        if given.get("name"):
            found.name = given["name"].strip()
        for name, column in (("description", "description"), ("metadata", "labels")):
            if name in given:
                setattr(found, column, given[name])
        session.flush()
        return project_row(found)

    return call.one(await call.write(work))


@router.post(P + "/move", tags=["projects"], **gives(ProjectRow, "Move a project, with all in it, to a workspace"))
async def move_project(call: KeyedDep, project_id: str, body: Move) -> Response:
    def work(session: Session) -> Json:
        found = project_of(call, session, project_id, WRITE)
        _may_change(call)
        workspaces.keep_default(session, call.team_id)
        found.workspace_id = _workspace(call, session, body.target_workspace_id).id
        session.flush()
        return project_row(found)

    return call.one(await call.write(work))


@router.delete(P, tags=["projects"], **gives(ProjectRow, "Delete an empty project"))
async def delete_project(call: CallDep, project_id: str) -> Response:
    def work(session: Session) -> Json:
        found = project_of(call, session, project_id, WRITE)
        _may_change(call)
        if found.is_default or any(_held(session, found)):
            raise HeadwayError("project.not_empty", "It is a default project, or holds deployments or sandboxes.")
        workspaces.delete_project(session, found, owner_of(session, call.sight, call.team_id, Ownership()))
        return project_row(found)

    return call.one(await call.write(work))
