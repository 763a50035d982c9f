"""`headway teams`, `members` and `projects`."""

from __future__ import annotations

from typing import Any

import click

from headway.cli.output import clean, print_fields, print_json, print_table, say
from headway.cli.session import Session, connected, limit_option

ROLES = click.Choice(["owner", "admin", "site_manager", "observer", "billing"])


@click.group()
def teams() -> None:
    """Teams: who owns sites."""


@teams.command("list")
@limit_option
@connected()
def list_teams(session: Session, limit: int | None) -> None:
    """List the teams that this key sees."""
    rows = list(session.client.teams.list(limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(("slug", "id", "name"), [(row.slug, row.id, row.name) for row in rows])


@teams.command("create")
@click.argument("name")
@click.option("--slug", help="Derived from the name if left out.")
@click.option("--owner", "owner_account_id", metavar="ACCOUNT", help="The account that owns it.")
@connected(writes=True)
def create_team(session: Session, name: str, **fields: Any) -> None:
    """Make a team (the operator's key only)."""
    _show(session, session.client.teams.create(name, idempotency_key=session.key, **fields).as_dict())


@teams.command("get")
@click.argument("team_id", metavar="TEAM")
@connected()
def get_team(session: Session, team_id: str) -> None:
    """Show one team."""
    _show(session, session.client.teams.get(team_id).as_dict())


@click.group()
def members() -> None:
    """Members of a team and their roles."""


team_option = click.option("--team", metavar="ID", help="This key's own team if left out.")


@members.command("list")
@team_option
@limit_option
@connected()
def list_members(session: Session, team: str | None, limit: int | None) -> None:
    """List a team's members."""
    rows = list(session.client.members.list(_team(session, team), limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("account", "name", "email", "role", "projects"),
        [(row.account_id, row.name, row.email, row.role, ", ".join(row.project_ids or []) or "all") for row in rows],
    )


@members.command()
@team_option
@click.option("--account", "account_id", metavar="ID")
@click.option("--email")
@click.option("--name", help="With --email, for the operator: makes the account if there is none.")
@click.option("--role", type=ROLES, required=True)
@click.option("--project", "project_ids", multiple=True, metavar="ID", help="Only there; may be repeated.")
@connected(writes=True)
def add(session: Session, team: str | None, role: str, project_ids: tuple[str, ...], **fields: Any) -> None:
    """Add a member by --account or --email."""
    if (fields["account_id"] is None) == (fields["email"] is None):
        raise click.UsageError("Give one of --account and --email.")
    member = session.client.members.add(
        _team(session, team), role, idempotency_key=session.key, project_ids=list(project_ids) or None, **fields
    )
    _show(session, member.as_dict())


@members.command("set-role")
@click.argument("account_id", metavar="ACCOUNT")
@click.argument("role", type=ROLES)
@team_option
@connected()
def set_role(session: Session, account_id: str, role: str, team: str | None) -> None:
    """Change a member's role; `owner` moves the ownership."""
    _show(session, session.client.members.update(_team(session, team), account_id, role=role).as_dict())


@members.command()
@click.argument("account_id", metavar="ACCOUNT")
@team_option
@connected()
def remove(session: Session, account_id: str, team: str | None) -> None:
    """Remove a member; their keys of this team die."""
    done = session.client.members.remove(_team(session, team), account_id)
    return print_json(done) if session.as_json else say(f"Removed {clean(account_id)}.")


@click.group()
def projects() -> None:
    """Projects: sites that belong together."""


@projects.command("list")
@limit_option
@connected()
def list_projects(session: Session, limit: int | None) -> None:
    """List the projects that this key sees."""
    rows = list(session.client.projects.list(limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("slug", "id", "name", "team", "default"),
        [(row.slug, row.id, row.name, row.team_id, "yes" if row.default else "") for row in rows],
    )


@projects.command("create")
@click.argument("name")
@click.option("--slug", help="Derived from the name if left out.")
@click.option("--team", "team_id", metavar="ID", help="This key's own team if left out.")
@connected(writes=True)
def create_project(session: Session, name: str, **fields: Any) -> None:
    """Make a project."""
    _show(session, session.client.projects.create(name, idempotency_key=session.key, **fields).as_dict())


@projects.command("get")
@click.argument("project_id", metavar="PROJECT")
@connected()
def get_project(session: Session, project_id: str) -> None:
    """Show one project."""
    _show(session, session.client.projects.get(project_id).as_dict())


def _team(session: Session, team: str | None) -> str:
    return team or str((session.client.account().team or {})["id"])


def _show(session: Session, row: dict[str, Any]) -> None:
    print_json(row) if session.as_json else print_fields(row)
