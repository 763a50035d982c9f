"""The calling account, its team, members, projects; and the key's budgets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from sqlmodel import Session
from starlette.responses import Response

from api.idempotency import Once
from api.managed.answers import DeletedRow
from api.managed.answers_around import AccountRow, MemberRow, ProjectRow, RateLimitsRow, TeamRow
from api.managed.call import Call, CallDep, KeyedDep, PagingDep
from api.managed.documents import gives, lists
from api.managed.rows_around import account_row, key_row, member_row, project_row, team_row
from api.managed.schemas import MemberAdd, MemberUpdate, ProjectCreate, TeamCreate
from api.scopes import ROLES
from headway.errors import HeadwayError
from store import accounts, projects
from store.models import Account, ApiKey, Team
from store.paging import Page

router = APIRouter()
Json = dict[str, Any]


@router.get("/account", tags=["account"], **gives(AccountRow, "Who this key is and what it may do"))
async def whoami(call: CallDep) -> Response:
    caller = call.caller

    def work(session: Session) -> Json:
        account = session.get(Account, caller.account_id) if caller.account_id else None
        granted = caller.scopes if caller.operator else caller.scopes & ROLES[caller.role]
        return {
            "account": account_row(account) if account else None,
            "team": team_row(session.get_one(Team, caller.team_id)),
            "key": key_row(session.get_one(ApiKey, caller.key_id)),
            "role": caller.role,
            "scopes": sorted(granted),
        }

    return call.one(await call.read(work))


@router.get("/rate-limits", tags=["account"], **gives(RateLimitsRow, "What is left of the key's budgets"))
async def rate_limits(call: CallDep) -> Response:
    limiter, caller = call.parts.limiter, call.caller

    def shown(owner: str, name: Any) -> Json:
        draw = limiter.peek(owner, name)
        return {"limit": draw.limit, "remaining": draw.remaining, "reset": draw.reset}

    own = {name: shown(caller.key_id, name) for name in ("read", "write", "create")}
    return call.one({"key": own, "team": shown(caller.team_id, "team")})


@router.get("/teams", tags=["teams"], **lists(TeamRow, "List teams"))
async def list_teams(call: CallDep, paging: PagingDep) -> Response:
    call.caller.require("teams:read")
    return await call.page(paging, lambda session, page: accounts.list_teams(session, call.sight, page), team_row)


@router.post("/teams", tags=["teams"], **gives(TeamRow, "Make a team (operator)", status=201, located=True))
async def create_team(call: KeyedDep, body: TeamCreate) -> Response:
    def work(session: Session, once: Once) -> tuple[Json, Json]:
        call.caller.require("teams:admin")
        _operator_only(call, "teams are made by the operator")
        owner = accounts.account(session, body.owner_account_id) if body.owner_account_id else None
        once.claim(session)
        team, _ = accounts.make_team(session, body.name.strip(), body.slug, owner)
        return team_row(team), team_row(team)

    return await call.create(body, work, located=True)


@router.get("/teams/{team_id}", tags=["teams"], **gives(TeamRow, "Get a team"))
async def get_team(call: CallDep, team_id: str) -> Response:
    return call.one(team_row(await call.read(lambda session: _team(call, session, team_id, "teams:read"))))


@router.get("/teams/{team_id}/members", tags=["teams"], **lists(MemberRow, "List a team's members"))
async def list_members(call: CallDep, paging: PagingDep, team_id: str) -> Response:
    def fetch(session: Session, page: Page) -> tuple[Sequence[Any], bool]:
        team = _team(call, session, team_id, "teams:read")
        rows, more = accounts.list_members(session, team.id, page)
        limits = [projects.projects_of_member(session, team.id, account.id) for _, account in rows]
        return [(member, account, limit) for (member, account), limit in zip(rows, limits, strict=True)], more

    return await call.page(
        paging, fetch, lambda row: member_row(*row), lambda row: (row[0].created_at, row[0].account_id)
    )


@router.post("/teams/{team_id}/members", tags=["teams"], **gives(MemberRow, "Add a member", status=201))
async def add_member(call: KeyedDep, team_id: str, body: MemberAdd) -> Response:
    if (body.account_id is None) == (body.email is None):
        raise HeadwayError("request.missing_parameter", "Give account_id or email.", param="account_id")

    def work(session: Session, once: Once) -> tuple[Json, Json]:
        team = _team(call, session, team_id, "teams:write")
        _may_give(call, body.role)
        once.claim(session)
        account = _named(call, session, body)
        member = accounts.add_member(session, team.id, account, body.role)
        if body.project_ids is not None:
            projects.limit_member(session, team.id, account.id, body.project_ids)
        row = member_row(member, account, projects.projects_of_member(session, team.id, account.id))
        return row, row

    return await call.create(body, work)


@router.patch(
    "/teams/{team_id}/members/{account_id}",
    tags=["teams"],
    **gives(MemberRow, "Change a member's role or projects; the role owner moves the ownership"),
)
async def update_member(call: CallDep, team_id: str, account_id: str, body: MemberUpdate) -> Response:
    def work(session: Session) -> Json:
        team = _team(call, session, team_id, "teams:write")
        member = accounts.membership(session, team.id, account_id)
        _may_give(call, member.role)
        if body.role is not None:
            _may_give(call, body.role)
            member = accounts.change_role(session, team.id, account_id, body.role)
        if body.project_ids is not None:
            projects.limit_member(session, team.id, account_id, body.project_ids)
        account = accounts.account(session, account_id)
        return member_row(member, account, projects.projects_of_member(session, team.id, account_id))

    row = await call.write(work)
    call.parts.auth.forget()
    return call.one(row)


@router.delete(
    "/teams/{team_id}/members/{account_id}", tags=["teams"], **gives(DeletedRow, "Remove a member; their keys die")
)
async def remove_member(call: CallDep, team_id: str, account_id: str) -> Response:
    def work(session: Session) -> None:
        team = _team(call, session, team_id, "teams:write")
        _may_give(call, accounts.membership(session, team.id, account_id).role)
        accounts.remove_member(session, team.id, account_id)

    await call.write(work)
    call.parts.auth.forget()
    return call.one({"id": account_id, "deleted": True})


@router.get("/projects", tags=["projects"], **lists(ProjectRow, "List projects"))
async def list_projects(call: CallDep, paging: PagingDep) -> Response:
    call.caller.require("sites:read")
    return await call.page(paging, lambda session, page: projects.list_projects(session, call.sight, page), project_row)


@router.post("/projects", tags=["projects"], **gives(ProjectRow, "Make a project", status=201, located=True))
async def create_project(call: KeyedDep, body: ProjectCreate) -> Response:
    def work(session: Session, once: Once) -> tuple[Json, Json]:
        team = accounts.team(session, call.sight, body.team_id or call.caller.team_id)
        call.caller.require("sites:write")
        _whole_team(call)
        call.caller.require_change("sites:write")
        once.claim(session)
        project = projects.make_project(session, team.id, body.name.strip(), body.slug)
        return project_row(project), project_row(project)

    return await call.create(body, work, located=True)


@router.get("/projects/{project_id}", tags=["projects"], **gives(ProjectRow, "Get a project"))
async def get_project(call: CallDep, project_id: str) -> Response:
    def work(session: Session) -> Json:
        project = projects.project(session, call.sight, project_id)
        call.caller.require("sites:read")
        return project_row(project)

    return call.one(await call.read(work))


def _team(call: Call, session: Session, team_id: str, scope: str) -> Team:
    """404 before 403."""
    team = accounts.team(session, call.sight, team_id)
    call.caller.require(scope)
    if not scope.endswith(":read"):
        call.caller.require_change(scope)
        _whole_team(call)
    return team


def _whole_team(call: Call) -> None:
    """Whoever is limited to some projects changes nothing of the team, its own limit least of all."""
    if not call.caller.operator and call.sight.project_ids is not None:
        raise HeadwayError("role.insufficient", "This key is limited to some projects.", param="scope")


def _operator_only(call: Call, why: str) -> None:
    if not call.caller.operator:
        raise HeadwayError("role.insufficient", f"Only the operator may do that: {why}.", param="scope")


def _may_give(call: Call, role: str) -> None:
    """The owner's role is the owner's to touch."""
    if role == "owner" and call.caller.role != "owner":
        raise HeadwayError("role.insufficient", "Only the owner may do that.", param="role")


def _named(call: Call, session: Session, body: MemberAdd) -> Account:
    """An account by id or e-mail. The operator makes a new one; nobody else learns which accounts there are."""
    if body.account_id is not None:
        if call.caller.operator or session.get(Account, body.account_id) is not None:
            return accounts.account(session, body.account_id)
        raise HeadwayError("account.not_found", f"There is no account {body.account_id}.", param="account_id")
    known = accounts.account_by_email(session, body.email or "")
    if known is not None:
        return known
    if not call.caller.operator:
        raise HeadwayError("account.not_found", "No account has that e-mail address.", param="email")
    return accounts.make_account(session, (body.name or body.email or "").strip(), body.email)
