"""What a credential may see, as conditions on queries. Whoever is outside of it gets "not found" (invariant 9)."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, false, select
from sqlmodel import col

from store.models import Environment, Job, Project, Site


@dataclass(frozen=True)
class Sight:
    """None in a field means "no limit by this". `nothing` is the sight of a role without sites.

    With `env_id`, the site above it stays visible, so that a caller finds the way; it may not be changed.
    """

    team_id: str | None = None
    project_ids: frozenset[str] | None = None
    site_id: str | None = None
    env_id: str | None = None
    nothing: bool = False

    def sites(self) -> list[ColumnElement[bool]]:
        if self.nothing:
            return [false()]
        found: list[ColumnElement[bool]] = []
        if self.team_id is not None:
            found.append(col(Site.team_id) == self.team_id)
        if self.project_ids is not None:
            found.append(col(Site.project_id).in_(sorted(self.project_ids)))
        if self.site_id is not None:
            found.append(col(Site.id) == self.site_id)
        return found

    def environments(self) -> list[ColumnElement[bool]]:
        """On top of `sites()`, which the query must join."""
        return [] if self.env_id is None else [col(Environment.id) == self.env_id]

    def jobs(self) -> list[ColumnElement[bool]]:
        if self.nothing:
            return [false()]
        found: list[ColumnElement[bool]] = []
        if self.team_id is not None:
            found.append(col(Job.team_id) == self.team_id)
        if self.project_ids is not None:
            within = select(col(Site.id)).where(col(Site.project_id).in_(sorted(self.project_ids)))
            found.append(col(Job.site_id).in_(within))
        if self.site_id is not None:
            found.append(col(Job.site_id) == self.site_id)
        if self.env_id is not None:
            found.append(col(Job.env_id) == self.env_id)
        return found

    def projects(self) -> list[ColumnElement[bool]]:
        if self.nothing:
            return [false()]
        found: list[ColumnElement[bool]] = []
        if self.team_id is not None:
            found.append(col(Project.team_id) == self.team_id)
        if self.project_ids is not None:
            found.append(col(Project.id).in_(sorted(self.project_ids)))
        if self.site_id is not None:
            found.append(col(Project.id).in_(select(col(Site.project_id)).where(col(Site.id) == self.site_id)))
        return found

    def covers(self, *, site_id: str | None = None, env_id: str | None = None) -> bool:
        """Whether something may be changed there: a sight narrowed to less than it may only look."""
        if self.nothing or (self.site_id is not None and site_id != self.site_id):
            return False
        return self.env_id is None or env_id == self.env_id
