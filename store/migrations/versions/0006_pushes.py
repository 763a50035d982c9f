"""Pushes to hosted repositories, branch routes, and how long an idle preview lives."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("site", sa.Column("branch_routes", sa.JSON(), nullable=True))
    op.add_column("site", sa.Column("routes_from_repository", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("environment", sa.Column("idle_hours", sa.Integer(), nullable=True))
    op.create_table(
        "push",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("site_id", sa.String(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("branch", sa.String(), nullable=False),
        sa.Column("old_sha", sa.String(), nullable=True),
        sa.Column("new_sha", sa.String(), nullable=True),
        sa.Column("env_id", sa.String(), nullable=True),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("actor_id", sa.String(), nullable=True),
        sa.Column("moved", sa.Boolean(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("site_id", "seq"),
    )
    op.create_index("push_branch", "push", ["site_id", "branch", "seq"])
    op.create_index(
        "push_open",
        "push",
        ["job_id"],
        sqlite_where=sa.text("settled_at IS NULL"),
        postgresql_where=sa.text("settled_at IS NULL"),
    )
