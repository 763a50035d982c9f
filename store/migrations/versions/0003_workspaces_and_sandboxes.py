"""Workspaces, sandboxes, and what a site and a build need to be published from one."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

EXTERNAL = ("external_workspace_id", "external_user_id", "external_project_id")


def json(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.JSON(none_as_null=True), nullable=True)


def text(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.String(), nullable=True)


def upgrade() -> None:
    _columns()
    _workspaces()
    _sandboxes()
    op.execute(
        """UPDATE build SET number = (
            SELECT count(*) FROM build AS other WHERE other.site_id = build.site_id
            AND (other.created_at < build.created_at OR (other.created_at = build.created_at AND other.id <= build.id))
        )"""
    )
    op.execute("UPDATE site SET build_count = (SELECT count(*) FROM build WHERE build.site_id = site.id)")


def _columns() -> None:
    added: dict[str, tuple[sa.Column[Any], ...]] = {
        "project": (text("workspace_id"), text("external_project_id"), text("description"), json("labels")),
        "site": (
            text("build_command"),
            text("run_command"),
            sa.Column("auto_deploy", sa.Boolean(), nullable=False, server_default=sa.true()),
            json("labels"),
            *(text(name) for name in EXTERNAL),
            sa.Column("build_count", sa.Integer(), nullable=False, server_default="0"),
            sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True),
        ),
        "build": (
            sa.Column("number", sa.Integer(), nullable=True),
            json("source"),
            json("overrides"),
            json("labels"),
        ),
    }
    for table, columns in added.items():
        for column in columns:
            op.add_column(table, column)
    for table, names in (("project", ("workspace_id", "external_project_id")), ("site", EXTERNAL)):
        for name in names:
            op.create_index(f"ix_{table}_{name}", table, [name])


def _workspaces() -> None:
    op.create_table(
        "workspace",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("team_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("slug", sa.String(), nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        text("external_workspace_id"),
        json("labels"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["team_id"], ["team.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_workspace_team_id", "workspace", ["team_id"])
    _unique_among("workspace_slug", "workspace", "slug", "deleted_at IS NULL")
    _unique_among(
        "workspace_external",
        "workspace",
        "external_workspace_id",
        "deleted_at IS NULL AND external_workspace_id IS NOT NULL",
    )


def _unique_among(name: str, table: str, column: str, where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, table, ["team_id", column], unique=True, sqlite_where=condition, postgresql_where=condition)


def _sandboxes() -> None:
    op.create_table(
        "sandbox",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("team_id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        text("name"),
        sa.Column("template_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        json("labels"),
        json("tags"),
        *(text(name) for name in EXTERNAL),
        sa.Column("idle_timeout_sec", sa.Integer(), nullable=True),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("rev", sa.Integer(), nullable=False),
        json("actor"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("destroyed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["team_id"], ["team.id"]),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("sandbox_team", "sandbox", ["team_id", "created_at", "id"])
    for name in ("project_id", "expires_at", *EXTERNAL):
        op.create_index(f"ix_sandbox_{name}", "sandbox", [name])
    _unique_among("sandbox_name", "sandbox", "name", "destroyed_at IS NULL AND name IS NOT NULL")
    op.create_table(
        "sandbox_file",
        sa.Column("sandbox_id", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("pack_sha256", sa.String(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["sandbox_id"], ["sandbox.id"]),
        sa.PrimaryKeyConstraint("sandbox_id", "path"),
    )
