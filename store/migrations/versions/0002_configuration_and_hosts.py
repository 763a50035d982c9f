"""Configuration: values by version, what rollouts froze, hosts and their keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "host",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("public_key", sa.String(), nullable=False),
        sa.Column("offered_key", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "config_value",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("site_id", sa.String(), nullable=False),
        sa.Column("owner_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("secret", sa.Boolean(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("current", sa.Boolean(), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=True),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=True),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("actor", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_by", sa.JSON(), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("owner_id", "name", "version"),
    )
    op.create_index("ix_config_value_site_id", "config_value", ["site_id"])
    op.create_index("ix_config_value_key_id", "config_value", ["key_id"])
    op.create_index(
        "config_value_current",
        "config_value",
        ["owner_id", "name"],
        unique=True,
        sqlite_where=sa.text("current"),
        postgresql_where=sa.text("current"),
    )
    op.create_table(
        "config_entry",
        sa.Column("env_id", sa.String(), nullable=False),
        sa.Column("config_version", sa.Integer(), nullable=False),
        sa.Column("value_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["env_id"], ["environment.id"]),
        sa.ForeignKeyConstraint(["value_id"], ["config_value.id"]),
        sa.PrimaryKeyConstraint("env_id", "config_version", "value_id"),
    )
    op.create_index("ix_config_entry_value_id", "config_entry", ["value_id"])
    op.add_column("rollout", sa.Column("keep_config", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("rollout", sa.Column("config_version", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("rollout", sa.Column("config_replaced", sa.JSON(), nullable=True))
