"""Deployments: create, list, get, change, delete, move, and what can be told of one (contract sections 2 and 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar
from starlette.responses import Response

from api.idempotency import Once
from api.miosa import names
from api.miosa.answers import AnyRow, DeploymentRow, DeploymentState
from api.miosa.call import Call, CallDep, KeyedDep, PagingDep
from api.miosa.document import gives, lists
from api.miosa.rows import deployment_row
from api.miosa.schemas import DeploymentCreate, DeploymentUpdate, Move, Nothing, Owned
from api.miosa.values import set_values, without_values
from headway.errors import HeadwayError
from store import sites
from store.config_values import Owner
from store.hostnames import hostnames_of
from store.models import Environment, Hostname, Job, Project, Site, utcnow
from store.sites import SiteRequest
from store.slugs import fitted, is_branch_name, short_hash, slugify
from store.standing import in_state, standings
from store.versions import live_build
from store.workspaces import Ownership, default_id, owner_of, workspace_in_sight

router = APIRouter(tags=["deployments"])
Json = dict[str, Any]
READ: Final = "deployments:read"
WRITE: Final = "deployments:write"
D: Final = "/deployments/{deployment_id}"
Filter = Annotated[str | None, Query(max_length=255)]


def site_of(call: Call, session: Session, deployment_id: str, scope: str = READ) -> Site:
    """404 before 403. What is being deleted is gone already."""
    site = sites.site(session, call.sight, names.site_id(deployment_id))
    if site.status == "deleting":
        raise HeadwayError("site.not_found", f"There is no deployment {deployment_id}.")
    call.caller.require(scope)
    return site


def site_to_change(call: Call, session: Session, deployment_id: str, env_id: str | None = None) -> Site:
    site = site_of(call, session, deployment_id, WRITE)
    call.caller.require_change(WRITE, site_id=site.id, env_id=env_id)
    return site


def shown(call: Call, session: Session, rows: Sequence[Site]) -> list[Json]:
    found = standings(session, rows)
    projects = {row.id: row for row in session.exec(_projects([row.project_id for row in rows])).all()}
    return [deployment_row(row, projects.get(row.project_id), found[row.id], call.parts) for row in rows]


def one_shown(call: Call, session: Session, site: Site) -> Json:
    return shown(call, session, [site])[0]


def _projects(ids: Sequence[str]) -> SelectOfScalar[Project]:
    return select(Project).where(col(Project.id).in_(ids))


def ownership(body: Owned) -> Ownership:
    return Ownership(**{name: getattr(body, name) for name in Ownership.__dataclass_fields__})


def refuse_out_of_scope(database: object = None, metadata: Json | None = None) -> None:
    """Raises request.unsupported for the vendor's other products (contract section 12)."""
    if database not in (None, False):
        raise HeadwayError("request.unsupported", "This platform has no databases of its own.", param="database")
    if (metadata or {}).get("deployment_product") == "docker_deploy":
        raise HeadwayError("request.unsupported", "This platform runs no container images.", param="metadata")


def make_site(call: Call, session: Session, project: Project, body: DeploymentCreate) -> Job:
    """A new site with its production environment, and the job that provisions it."""
    repository = call.parts.repositories.normal(body.repo_url, param="repo_url") if body.repo_url else None
    branch = body.branch or "main"
    if not is_branch_name(branch):
        raise HeadwayError("ref.invalid", f"{branch!r} is no name of a branch.", param="branch")
    wanted = SiteRequest(
        name=body.name.strip(),
        slug=body.slug or _free_slug(session, project.team_id, body.name),
        runtime="auto",
        profile="auto",
        repository=repository,
        default_branch=branch,
    )
    job = sites.accept_site(session, project, wanted, call.caller.actor, call.parts.addresses.domain)
    site = session.get_one(Site, job.site_id)
    for name in ("build_command", "run_command", "auto_deploy", *EXTERNAL):
        setattr(site, name, getattr(body, name))
    site.labels = body.metadata
    session.flush()
    return job


EXTERNAL: Final = ("external_workspace_id", "external_user_id", "external_project_id")


def _free_slug(session: Session, team_id: str, name: str) -> str | None:
    """Names may repeat; a slug that is taken gets a hash. None: the name leaves nothing to make one of."""
    plain = slugify(name)
    if not plain:
        return None
    for n in range(100):
        candidate = plain if n == 0 else fitted(plain, short_hash(team_id, plain, str(n)), limit=40)
        taken = select(Site.id).where(Site.team_id == team_id, Site.slug == candidate, col(Site.deleted_at).is_(None))
        if session.exec(taken).first() is None:
            return candidate
    return None


async def _create(call: Call, body: DeploymentCreate, project_id: str | None) -> Response:
    refuse_out_of_scope(body.database, body.metadata)
    once = call.once(without_values(body))
    if (known := await call.known(once)) is not None:
        return await _created(call, known, replayed=True)

    def work(session: Session, once: Once) -> list[Job]:
        call.caller.require_change(WRITE)
        once.claim(session)
        wanted = ownership(body)
        project = owner_of(
            session, call.sight, call.team_id, replace(wanted, project_id=project_id or wanted.project_id)
        )
        job = make_site(call, session, project, body)
        if body.env:
            site = session.get_one(Site, job.site_id)
            production = session.get_one(Environment, site.production_env_id)
            set_values(call, session, Owner.of(site, production), body.env)
        return [job]

    job, _ = await call.accept(once, work)
    return await _created(call, job)


async def _created(call: Call, job: Job, *, replayed: bool = False) -> Response:
    row = await call.read(lambda session: one_shown(call, session, session.get_one(Site, job.site_id)))
    return call.one(row, 201, {"Idempotent-Replayed": "true"} if replayed else None)


@router.post("/deployments", **gives(DeploymentRow, "Make a deployment", 201))
async def create_deployment(call: KeyedDep, body: DeploymentCreate) -> Response:
    return await _create(call, body, None)


@router.post("/projects/{project_id}/deployments", **gives(DeploymentRow, "Make a deployment in a project", 201))
async def create_deployment_in_project(call: KeyedDep, project_id: str, body: DeploymentCreate) -> Response:
    return await _create(call, body, project_id)


async def _list(call: Call, paging: PagingDep, filters: Json) -> Response:
    call.caller.require(READ)

    def query(_session: Session) -> SelectOfScalar[Site]:
        found = select(Site).where(*call.sight.sites(), col(Site.deleted_at).is_(None), Site.status != "deleting")
        for name in ("project_id", *EXTERNAL):
            if filters.get(name) is not None:
                found = found.where(col(getattr(Site, name)) == filters[name])
        if filters.get("workspace_id") is not None:
            found = found.where(col(Site.project_id).in_(_in_workspace(call, filters["workspace_id"])))
        if filters.get("state") is not None:
            found = found.where(in_state(filters["state"]))
        return found

    return await call.listed(
        paging, query, lambda session, rows: shown(call, session, rows), time=Site.created_at, id=Site.id
    )


def _in_workspace(call: Call, workspace_id: str) -> Any:
    own = select(col(Project.id)).where(Project.team_id == call.team_id)
    if workspace_id == default_id(call.team_id):
        return own.where((col(Project.workspace_id) == workspace_id) | col(Project.workspace_id).is_(None))
    return own.where(Project.workspace_id == workspace_id)


@router.get("/deployments", **lists(DeploymentRow, "List deployments"))
async def list_deployments(
    call: CallDep,
    paging: PagingDep,
    workspace_id: Filter = None,
    project_id: Filter = None,
    external_workspace_id: Filter = None,
    external_user_id: Filter = None,
    external_project_id: Filter = None,
    state: DeploymentState | None = None,
) -> Response:
    filters = {
        "workspace_id": workspace_id,
        "project_id": project_id,
        "external_workspace_id": external_workspace_id,
        "external_user_id": external_user_id,
        "external_project_id": external_project_id,
        "state": state,
    }
    return await _list(call, paging, filters)


@router.get("/workspaces/{workspace_id}/deployments", **lists(DeploymentRow, "List a workspace's deployments"))
async def list_workspace_deployments(call: CallDep, paging: PagingDep, workspace_id: str) -> Response:
    await call.read(lambda session: workspace_in_sight(session, call.sight, call.team_id, workspace_id))
    return await _list(call, paging, {"workspace_id": workspace_id})


@router.get(D, **gives(DeploymentRow, "Get a deployment"))
async def get_deployment(call: CallDep, deployment_id: str) -> Response:
    def work(session: Session) -> Json:
        return one_shown(call, session, site_of(call, session, deployment_id))

    return call.one(await call.read(work))


@router.patch(D, **gives(DeploymentRow, "Change a deployment; what is left out stays"))
async def update_deployment(call: CallDep, deployment_id: str, body: DeploymentUpdate | None = None) -> Response:
    given = body.model_dump(exclude_unset=True) if body is not None else {}

    def work(session: Session) -> Json:
        site = site_to_change(call, session, deployment_id)
        _change(session, site, given)
        if given:
            site.updated_at = utcnow()
        session.flush()
        return one_shown(call, session, site)

    return call.one(await call.write(work))


def _change(session: Session, site: Site, given: Json) -> None:
    """Raises request.unsupported, ref.invalid and environment.branch_taken."""
    if given.get("slug") not in (None, site.slug):
        raise HeadwayError("request.unsupported", "A slug is the address: it stays. Change the name.", param="slug")
    branch = given.get("branch")
    if branch is not None and not is_branch_name(branch):
        raise HeadwayError("ref.invalid", f"{branch!r} is no name of a branch.", param="branch")
    for name in ("build_command", "run_command", *EXTERNAL):
        if name in given:
            setattr(site, name, given[name])
    if named := (given.get("name") or "").strip():
        site.name = named
    if branch:
        sites.set_default_branch(session, site, branch)
    if given.get("auto_deploy") is not None:
        site.auto_deploy = given["auto_deploy"]
    if "metadata" in given:
        site.labels = given["metadata"]


@router.delete(D, **gives(AnyRow, "Delete a deployment: its routes go, its versions stay for retention"))
async def delete_deployment(call: KeyedDep, deployment_id: str, _body: Nothing | None = None) -> Response:
    def work(session: Session, once: Once) -> list[Job]:
        site = site_to_change(call, session, deployment_id)
        once.claim(session)
        return [sites.accept_deletion(session, site, call.caller.actor)]

    once = call.once(None)
    # Of what was deleted under this key nothing is there to be found.
    if await call.known(once) is None:
        await call.accept(once, work)
    return call.one({"id": deployment_id, "deleted": True}, id=deployment_id, deleted=True)


@router.post(D + "/move", **gives(DeploymentRow, "Move a deployment to another workspace"))
async def move_deployment(call: KeyedDep, deployment_id: str, body: Move) -> Response:
    def work(session: Session) -> Json:
        site = site_to_change(call, session, deployment_id)
        wanted = Ownership(workspace_id=body.target_workspace_id, project_id=body.target_project_id)
        site.project_id = owner_of(session, call.sight, site.team_id, wanted).id
        site.updated_at = utcnow()
        session.flush()
        return one_shown(call, session, site)

    return call.one(await call.write(work))


@router.get(D + "/proof", **gives(AnyRow, "Whether a deployment serves, check by check"))
async def prove_deployment(call: CallDep, deployment_id: str) -> Response:
    def work(session: Session) -> Json:
        site = site_of(call, session, deployment_id)
        row, found = one_shown(call, session, site), standings(session, [site])[site.id]
        signed = found.artifact is not None
        checks = [
            _check("deployment_row", True, f"The deployment {row['id']} exists.", state=row["state"]),
            _check("deployment_running", row["state"] == "running", f"It is {row['state']}.", state=row["state"]),
            _check("public_url_present", bool(row["public_url"]), f"Its address is {row['public_url']}."),
            _check("artifact_signed", signed, "What runs is signed." if signed else "Nothing runs."),
        ]
        actions = [] if row["state"] == "running" else ["Publish a version, or promote one that is ready."]
        facts = {"deployment": row, "deployment_product": "miosa_deploy", "public_url": row["public_url"]}
        return {"ok": all(one["ok"] for one in checks), **facts, "checks": checks, "next_actions": actions}

    return call.one(await call.read(work))


def _check(id: str, ok: bool, message: str, **details: Any) -> Json:
    return {"id": id, "ok": ok, "message": message, "details": details}


@router.get(D + "/routes", **gives(AnyRow, "The host names of a deployment, and what each leads to"))
async def deployment_routes(call: CallDep, deployment_id: str) -> Response:
    def work(session: Session) -> Json:
        site = site_of(call, session, deployment_id)
        query = select(Environment).where(Environment.site_id == site.id, col(Environment.deleted_at).is_(None))
        environments = session.exec(query).all()
        found = hostnames_of(session, [one.id for one in environments])
        rows = [row for one in environments for row in _routes(call, session, one, found[one.id])]
        return {"deployment_id": deployment_id, "routes": rows}

    return call.one(await call.read(work))


def _routes(call: Call, session: Session, environment: Environment, hostnames: Sequence[Hostname]) -> list[Json]:
    live = live_build(session, environment.id)
    version = names.shown_or_none(live[1] if live else None)
    return [
        {
            "hostname": name.name,
            "url": call.parts.addresses.site_url(name.name),
            "environment": environment.slug,
            "primary": name.is_primary,
            "version_id": version,
        }
        for name in hostnames
    ]


async def _out_of_scope(call: CallDep, deployment_id: str) -> Response:
    await call.read(lambda session: site_of(call, session, deployment_id))
    raise HeadwayError("request.unsupported", "Databases, backups of them and connectors are not of this platform.")


async def _version_out_of_scope(call: CallDep, deployment_id: str, version_id: str) -> Response:  # noqa: ARG001
    return await _out_of_scope(call, deployment_id)


for _path, _endpoint, _name in (
    (D + "/database", _out_of_scope, "attach_database"),
    (D + "/connectors", _out_of_scope, "attach_connector"),
    (D + "/versions/{version_id}/migration-backup", _version_out_of_scope, "migration_backup"),
):
    router.add_api_route(
        _path,
        _endpoint,
        methods=["POST"],
        status_code=409,
        responses={409: {"description": "Always: out of this platform's scope."}},
        response_model=None,
        name=_name,
        summary="Not on this platform",
    )
