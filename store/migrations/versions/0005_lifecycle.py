"""Lifecycle of environments: the number of instances, the bake time, and what hosts found and mended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("environment", sa.Column("instances", sa.Integer(), nullable=True))
    op.add_column("environment", sa.Column("bake_seconds", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("rollout", sa.Column("instances", sa.Integer(), nullable=True))
    op.add_column("rollout", sa.Column("bake", sa.JSON(), nullable=True))
    op.create_table(
        "drift",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("site_id", sa.String(), nullable=False),
        sa.Column("env_id", sa.String(), nullable=False),
        sa.Column("host_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("found_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("mended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"]),
        sa.ForeignKeyConstraint(["env_id"], ["environment.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("drift_env", "drift", ["env_id", "created_at", "id"])
    op.create_index(
        "drift_open",
        "drift",
        ["env_id"],
        sqlite_where=sa.text("mended_at IS NULL"),
        postgresql_where=sa.text("mended_at IS NULL"),
    )
