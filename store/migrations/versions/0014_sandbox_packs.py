"""Packs and snapshots of sandboxes: which are there, what names them, who counts on them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sandbox_pack",
        sa.Column("team_id", sa.String(), sa.ForeignKey("team.id"), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("marked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("looked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("team_id", "sha256"),
    )
    op.create_table(
        "sandbox_snapshot",
        sa.Column("team_id", sa.String(), sa.ForeignKey("team.id"), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("marked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("team_id", "sha256"),
    )
    op.create_table(
        "sandbox_snapshot_pack",
        sa.Column("team_id", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("pack_sha256", sa.String(), nullable=False),
        sa.Column("left_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("team_id", "sha256", "pack_sha256"),
    )
    op.create_index("sandbox_snapshot_pack_pack", "sandbox_snapshot_pack", ["team_id", "pack_sha256"])
    op.create_table(
        "sandbox_lease",
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("team_id", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("holder", "team_id", "sha256"),
    )
    op.create_index("sandbox_lease_sha256", "sandbox_lease", ["team_id", "sha256"])
    op.create_index("sandbox_file_pack", "sandbox_file", ["pack_sha256"])
    op.add_column("build", sa.Column("snapshot_sha256", sa.String(), nullable=True))
    op.execute(
        sa.text("UPDATE build SET snapshot_sha256 = json_extract(source, '$.sha256') WHERE source IS NOT NULL")
        if op.get_bind().dialect.name == "sqlite"
        else sa.text("UPDATE build SET snapshot_sha256 = source->>'sha256' WHERE source IS NOT NULL")
    )
    op.create_index(
        "build_snapshot",
        "build",
        ["snapshot_sha256"],
        sqlite_where=sa.text("snapshot_sha256 IS NOT NULL"),
        postgresql_where=sa.text("snapshot_sha256 IS NOT NULL"),
    )
