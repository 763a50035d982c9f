"""Workspaces: the level between a team and its projects, for callers who resell the platform to customers of theirs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from store.models import json_column, utcnow

Json = dict[str, Any]


class Workspace(SQLModel, table=True):
    """`slug` and, where there is one, `external_workspace_id` are unique per team among the living."""

    __table_args__ = (
        Index(
            "workspace_slug",
            "team_id",
            "slug",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index(
            "workspace_external",
            "team_id",
            "external_workspace_id",
            unique=True,
            sqlite_where=text("deleted_at IS NULL AND external_workspace_id IS NOT NULL"),
            postgresql_where=text("deleted_at IS NULL AND external_workspace_id IS NOT NULL"),
        ),
    )
    id: str = Field(primary_key=True)
    team_id: str = Field(foreign_key="team.id", index=True)
    name: str
    slug: str
    is_default: bool = False
    external_workspace_id: str | None = None
    labels: Json | None = json_column()
    created_at: datetime = Field(default_factory=utcnow)
    updated_at: datetime | None = None
    deleted_at: datetime | None = None
