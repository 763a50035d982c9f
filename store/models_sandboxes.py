"""Sandboxes: mutable file trees. Rows say which path holds which content; the bytes lie in the object store."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, text
from sqlmodel import Field, SQLModel

from store.models import json_column, utcnow

Json = dict[str, Any]


class Sandbox(SQLModel, table=True):
    """`state`: running | destroyed. `files` and `size_bytes` are of the tree; `rev` grows with every change of it.

    `expires_at` moves on with every use and is None where the sandbox is kept for good.
    """

    __table_args__ = (
        Index("sandbox_team", "team_id", "created_at", "id"),
        Index(
            "sandbox_name",
            "team_id",
            "name",
            unique=True,
            sqlite_where=text("destroyed_at IS NULL AND name IS NOT NULL"),
            postgresql_where=text("destroyed_at IS NULL AND name IS NOT NULL"),
        ),
    )
    id: str = Field(primary_key=True)
    team_id: str = Field(foreign_key="team.id")
    project_id: str = Field(foreign_key="project.id", index=True)
    name: str | None = None
    template_id: str = "miosa-sandbox"
    state: str = "running"
    labels: Json | None = json_column()
    tags: Json | None = json_column()
    external_workspace_id: str | None = Field(default=None, index=True)
    external_user_id: str | None = Field(default=None, index=True)
    external_project_id: str | None = Field(default=None, index=True)
    idle_timeout_sec: int | None = None
    files: int = 0
    size_bytes: int = Field(default=0, sa_type=BigInteger)
    rev: int = 0
    actor: Json | None = json_column()
    created_at: datetime = Field(default_factory=utcnow)
    used_at: datetime = Field(default_factory=utcnow)
    expires_at: datetime | None = Field(default=None, index=True)
    destroyed_at: datetime | None = None


class SandboxFile(SQLModel, table=True):
    """One file: `size` bytes at `offset` of a pack of the team, `sandboxes/{team_id}/packs/{pack_sha256}`.

    `path` is relative to the workspace; `sha256` is of the file's own bytes.
    """

    __tablename__ = "sandbox_file"
    __table_args__ = (Index("sandbox_file_pack", "pack_sha256"),)
    sandbox_id: str = Field(primary_key=True, foreign_key="sandbox.id")
    path: str = Field(primary_key=True)
    sha256: str
    size: int = Field(sa_type=BigInteger)
    mode: str = "644"
    pack_sha256: str
    offset: int = Field(sa_type=BigInteger)
    updated_at: datetime = Field(default_factory=utcnow)
