"""Workspaces, and the project that a request's words of ownership lead to: found, or made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, exists, func, update
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from headway.errors import HeadwayError
from headway.ids import new_id
from store.models import Project, ProjectMembership, Site, Team, utcnow
from store.models_sandboxes import Sandbox
from store.models_workspaces import Workspace
from store.projects import default_project, project
from store.sight import Sight
from store.slugs import fitted, short_hash, slugify

Json = dict[str, Any]
DEFAULT_NAME: Final = "Default"


@dataclass(frozen=True)
class Ownership:
    """Who something is to belong to, in the words of a request; nothing of it is a right."""

    workspace_id: str | None = None
    workspace_slug: str | None = None
    workspace_name: str | None = None
    external_workspace_id: str | None = None
    project_id: str | None = None
    project_slug: str | None = None
    project_name: str | None = None
    external_project_id: str | None = None


def default_id(team_id: str) -> str:
    """The id of a team's default workspace, known before there is a row."""
    return "ws_" + team_id.split("_", 1)[1]


def workspace_id_of(owned: Project) -> str:
    return owned.workspace_id or default_id(owned.team_id)


def default_workspace(session: Session, team_id: str) -> Workspace:
    """The team's default workspace; its row is made with its first use, so a reader may get one that is not kept."""
    found = session.get(Workspace, default_id(team_id))
    if found is None:
        team = session.get_one(Team, team_id)
        found = Workspace(
            id=default_id(team_id),
            team_id=team_id,
            name=DEFAULT_NAME,
            slug="default",
            is_default=True,
            created_at=team.created_at,
        )
    return found


def workspace(session: Session, team_id: str, workspace_id: str) -> Workspace:
    """Raises workspace.not_found for an unknown one, a deleted one and another team's."""
    if workspace_id == default_id(team_id):
        return default_workspace(session, team_id)
    found = session.get(Workspace, workspace_id)
    if found is None or found.team_id != team_id or found.deleted_at is not None:
        raise HeadwayError("workspace.not_found", f"There is no workspace {workspace_id}.", param="workspace_id")
    return found


def workspace_in_sight(session: Session, sight: Sight, team_id: str, workspace_id: str) -> Workspace:
    """Raises workspace.not_found, also where none of its projects is visible to a limited key."""
    found = workspace(session, team_id, workspace_id)
    seen = in_sight(sight, team_id)
    if seen and session.exec(select(Workspace.id).where(Workspace.id == found.id, *seen)).first() is None:
        raise HeadwayError("workspace.not_found", f"There is no workspace {workspace_id}.", param="workspace_id")
    return found


def make_workspace(
    session: Session,
    team_id: str,
    name: str,
    *,
    slug: str | None = None,
    external_id: str | None = None,
    labels: Json | None = None,
    twice: bool = False,
) -> Workspace:
    """Raises workspace.name_exists where a living one has that name, unless it may be there `twice`."""
    session.get(Team, team_id, with_for_update={"key_share": True})
    living = _living(team_id)
    if not twice:
        check_name(session, team_id, name)
    made_id = new_id("ws")
    wanted = slugify(slug or name) or "workspace"
    if wanted == "default" or session.exec(living.where(Workspace.slug == wanted)).first() is not None:
        wanted = fitted(wanted, short_hash(made_id))
    made = Workspace(
        id=made_id, team_id=team_id, name=name, slug=wanted, external_workspace_id=external_id, labels=labels
    )
    session.add(made)
    session.flush()
    return made


def check_name(session: Session, team_id: str, name: str) -> None:
    taken = session.exec(_living(team_id).where(Workspace.name == name)).first()
    if name == DEFAULT_NAME or taken is not None:
        raise HeadwayError("workspace.name_exists", f"There is a workspace named {name!r}.", param="name")


def keep_default(session: Session, team_id: str) -> None:
    """Give the default workspace its row."""
    if session.get(Workspace, default_id(team_id)) is None:
        session.add(default_workspace(session, team_id))
        session.flush()


def home_of(session: Session, team_id: str, wanted: Ownership) -> Workspace:
    """The workspace of these words, found or made."""
    return _workspace_of(session, team_id, wanted, make=True)


def belongs_to(home: Workspace) -> ColumnElement[bool]:
    """A condition on projects."""
    inside = col(Project.workspace_id) == home.id
    return inside | col(Project.workspace_id).is_(None) if home.is_default else inside


def projects_of_workspace(session: Session, team_id: str, workspace_id: str) -> frozenset[str]:
    """None of them where the workspace is gone."""
    inside = col(Project.workspace_id) == workspace_id
    if workspace_id == default_id(team_id):
        inside = inside | col(Project.workspace_id).is_(None)
    return frozenset(session.exec(select(Project.id).where(Project.team_id == team_id, inside)).all())


def in_sight(sight: Sight, team_id: str) -> list[ColumnElement[bool]]:
    """Conditions on workspaces: who is limited to some projects sees the workspaces of those."""
    if sight.project_ids is None and sight.site_id is None:
        return []
    homes = select(func.coalesce(col(Project.workspace_id), default_id(team_id)))
    return [col(Workspace.id).in_(homes.where(Project.team_id == team_id, *sight.projects()))]


def delete_project(session: Session, found: Project, heir: Project) -> None:
    """The records of what has been in it go to `heir`. Raises project.not_empty where a member is limited to it alone:
    without it he would be limited to nothing.
    """
    if (count := session.exec(_limited_to(found)).one()) > 0:
        message = f"{count} members are limited to the project {found.name!r} alone: limit them to another one first."
        raise HeadwayError("project.not_empty", message)
    for table in (Site, Sandbox):
        session.execute(update(table).where(col(table.project_id) == found.id).values(project_id=heir.id))
    for row in session.exec(select(ProjectMembership).where(ProjectMembership.project_id == found.id)).all():
        session.delete(row)
    session.flush()
    session.delete(found)


def _limited_to(found: Project) -> SelectOfScalar[int]:
    elsewhere = aliased(ProjectMembership)
    others = (
        exists()
        .where(elsewhere.account_id == ProjectMembership.account_id, elsewhere.project_id != found.id)  # type: ignore[arg-type]
        .where(col(Project.id) == col(elsewhere.project_id), col(Project.team_id) == found.team_id)
    )
    query = select(func.count()).select_from(ProjectMembership)
    return query.where(col(ProjectMembership.project_id) == found.id, ~others)


def workspace_by_external(session: Session, team_id: str, external_id: str) -> Workspace | None:
    found: Workspace | None = session.exec(
        _living(team_id).where(Workspace.external_workspace_id == external_id)
    ).first()
    return found


def delete_workspace(session: Session, found: Workspace) -> None:
    """Raises workspace.not_empty while projects are in it, and for the default one."""
    if found.is_default:
        raise HeadwayError("workspace.not_empty", "The default workspace stays.")
    if session.exec(select(Project.id).where(Project.workspace_id == found.id)).first() is not None:
        raise HeadwayError("workspace.not_empty", f"The workspace {found.name!r} holds projects: move them first.")
    found.deleted_at = utcnow()
    session.add(found)


def owner_of(session: Session, sight: Sight, team_id: str, wanted: Ownership) -> Project:
    """The project that something new belongs to. Raises project.not_found or workspace.not_found.

    What a credential cannot see it does not make either: one that is limited to some projects finds, and never makes.
    """
    if wanted.project_id is not None:
        found = project(session, sight, wanted.project_id)
        if found.team_id != team_id:
            raise HeadwayError("project.not_found", f"There is no project {wanted.project_id}.", param="project_id")
        return found
    limited = sight.project_ids is not None or sight.site_id is not None
    if limited and not _names_something(wanted):
        return default_project(session, sight, team_id)
    home = _workspace_of(session, team_id, wanted, make=not limited)
    known = _project_in(session, home, wanted)
    if known is not None:
        return project(session, sight, known.id)
    if limited:
        raise HeadwayError("project.not_found", "There is no such project that this key may use.", param="project_id")
    return _make_project(session, home, wanted)


def _names_something(wanted: Ownership) -> bool:
    return any(value is not None for value in vars(wanted).values())


def _living(team_id: str) -> Any:
    return select(Workspace).where(Workspace.team_id == team_id, col(Workspace.deleted_at).is_(None))


def _workspace_of(session: Session, team_id: str, wanted: Ownership, *, make: bool) -> Workspace:
    if wanted.workspace_id is not None:
        return workspace(session, team_id, wanted.workspace_id)
    slug, name, external = wanted.workspace_slug, wanted.workspace_name, wanted.external_workspace_id
    if slug is None and name is None and external is None:
        return default_workspace(session, team_id)
    named = (
        (Workspace.external_workspace_id, external),
        (Workspace.slug, slugify(slug) if slug else None),
        (Workspace.name, None if slug else name),
    )
    for column, value in named:
        found = session.exec(_living(team_id).where(col(column) == value)).first() if value is not None else None
        if found is not None:
            return found  # type: ignore[no-any-return]
    if slug == "default" or (slug is None and external is None and name == DEFAULT_NAME):
        return default_workspace(session, team_id)
    if not make:
        raise HeadwayError("workspace.not_found", "There is no such workspace.", param="workspace_id")
    fresh = name or slug or external or "Workspace"
    if session.exec(_living(team_id).where(Workspace.name == fresh)).first() is not None or fresh == DEFAULT_NAME:
        fresh = f"{fresh} ({short_hash(slug or '', external or '', fresh)})"
    return make_workspace(session, team_id, fresh, slug=slug or name or external, external_id=external)


def _within(home: Workspace) -> Any:
    return select(Project).where(Project.team_id == home.team_id, belongs_to(home))


def _project_in(session: Session, home: Workspace, wanted: Ownership) -> Project | None:
    slug, name, external = wanted.project_slug, wanted.project_name, wanted.external_project_id
    if slug is None and name is None and external is None:
        query = _within(home).where(col(Project.is_default)).order_by(col(Project.created_at))
        return session.exec(query).first()  # type: ignore[no-any-return]
    plain = slugify(slug) if slug else None
    slugs = [plain, fitted(plain, short_hash(home.id))] if plain else []
    conditions = (
        col(Project.external_project_id) == external if external is not None else None,
        col(Project.slug).in_(slugs) if slugs else None,
        col(Project.name) == name if name is not None and slug is None else None,
    )
    for condition in conditions:
        found = session.exec(_within(home).where(condition)).first() if condition is not None else None
        if found is not None:
            return found  # type: ignore[no-any-return]
    return None


def _make_project(session: Session, home: Workspace, wanted: Ownership) -> Project:
    slug, name, external = wanted.project_slug, wanted.project_name, wanted.external_project_id
    named = slug is not None or name is not None or external is not None
    text = name or slug or external or DEFAULT_NAME
    return add_project(
        session, home, text, slug or name or external or "default", external_id=external, is_default=not named
    )


def add_project(
    session: Session,
    home: Workspace,
    name: str,
    slug: str,
    *,
    external_id: str | None = None,
    is_default: bool = False,
    description: str | None = None,
    labels: Json | None = None,
) -> Project:
    """A project in a workspace. Slugs are unique in the team: a taken one gets a hash of the workspace."""
    session.get(Team, home.team_id, with_for_update={"key_share": True})
    if home.is_default:
        session.merge(home)
    project_id, plain = new_id("proj"), slugify(slug) or "project"
    for candidate in (plain, fitted(plain, short_hash(home.id)), fitted(plain, short_hash(project_id))):
        taken = select(Project.id).where(Project.team_id == home.team_id, Project.slug == candidate)
        if session.exec(taken).first() is None:
            break
    made = Project(
        id=project_id,
        team_id=home.team_id,
        name=name,
        slug=candidate,
        is_default=is_default,
        workspace_id=home.id,
        external_project_id=external_id,
        description=description,
        labels=labels,
    )
    session.add(made)
    session.flush()
    return made
