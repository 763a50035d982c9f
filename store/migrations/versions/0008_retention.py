"""Retention: artifacts that are kept or marked, packs that lost a user, objects on their way out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("artifact", sa.Column("kept", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("artifact", sa.Column("marked_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("pack", sa.Column("loosened_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "artifact_marked",
        "artifact",
        ["marked_at"],
        sqlite_where=sa.text("marked_at IS NOT NULL"),
        postgresql_where=sa.text("marked_at IS NOT NULL"),
    )
    op.create_index("artifact_pack_pack", "artifact_pack", ["site_id", "pack_sha256"])
    op.create_index("pack_lease_pack", "pack_lease", ["site_id", "pack_sha256"])
    op.create_table(
        "doomed",
        sa.Column("site_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("doomed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("site_id", "key"),
    )
    op.create_table(
        "repack",
        sa.Column("site_id", sa.String(), nullable=False),
        sa.Column("old_sha256", sa.String(), nullable=False),
        sa.Column("new_sha256", sa.String(), nullable=False),
        sa.Column("contents", sa.JSON(), nullable=False),
        sa.Column("copied_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("site_id", "old_sha256"),
    )
