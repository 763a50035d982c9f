"""Projects: the groups of a team's sites."""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from headway.ids import new_id
from store.models import Project, ProjectMembership, Team
from store.paging import Page, fetch_page
from store.sight import Sight
from store.slugs import slugify


def list_projects(session: Session, sight: Sight, page: Page) -> tuple[Sequence[Project], bool]:
    return fetch_page(session, select(Project).where(*sight.projects()), page, time=Project.created_at, id=Project.id)


def project(session: Session, sight: Sight, project_id: str) -> Project:
    found = session.exec(select(Project).where(Project.id == project_id, *sight.projects())).first()
    if found is None:
        raise HeadwayError("project.not_found", f"There is no project {project_id}.", param="project_id")
    return found


def default_project(session: Session, sight: Sight, team_id: str) -> Project:
    """The team's default project, or, for a credential that may not see it, the oldest that it may."""
    query = select(Project).where(Project.team_id == team_id, *sight.projects())
    found = session.exec(query.order_by(col(Project.is_default).desc(), col(Project.created_at))).first()
    if found is None:
        raise HeadwayError("project.not_found", "There is no project that this key may use.", param="project_id")
    return found


def make_project(session: Session, team_id: str, name: str, slug: str | None) -> Project:
    """Raises project.slug_taken."""
    session.get(Team, team_id, with_for_update={"key_share": True})
    wanted = slug or slugify(name) or "project"
    if session.exec(select(Project).where(Project.team_id == team_id, Project.slug == wanted)).first() is not None:
        raise HeadwayError(
            "project.slug_taken", f"This team has a project with the slug {wanted}.", param="slug" if slug else "name"
        )
    made = Project(id=new_id("proj"), team_id=team_id, name=name, slug=wanted)
    session.add(made)
    session.flush()
    return made


def projects_of_member(session: Session, team_id: str, account_id: str) -> frozenset[str] | None:
    """Where the member's role applies: None is everywhere in the team."""
    rows = session.exec(
        select(ProjectMembership.project_id)
        .join(Project, col(Project.id) == col(ProjectMembership.project_id))
        .where(Project.team_id == team_id, ProjectMembership.account_id == account_id)
    ).all()
    return frozenset(rows) or None


def limit_member(session: Session, team_id: str, account_id: str, project_ids: list[str]) -> None:
    """Replace where the member's role applies; an empty list lifts the limit."""
    theirs = select(Project.id).where(Project.team_id == team_id)
    for row in session.exec(
        select(ProjectMembership).where(
            ProjectMembership.account_id == account_id, col(ProjectMembership.project_id).in_(theirs)
        )
    ).all():
        session.delete(row)
    session.flush()
    for project_id in dict.fromkeys(project_ids):
        project(session, Sight(team_id=team_id), project_id)
        session.add(ProjectMembership(project_id=project_id, account_id=account_id))
    session.flush()
