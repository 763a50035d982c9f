"""Integrity: what a scrub of the object store found, and how it ended; the ledger's entry of each policy."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "finding",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("site_id", sa.String(), nullable=False),
        sa.Column("object", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("damage", sa.String(), nullable=False),
        sa.Column("etag", sa.String(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("tried", sa.JSON(), nullable=False),
        sa.Column("mended_by", sa.String(), nullable=True),
        sa.Column("found_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("mended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("log_index", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.add_column("policy", sa.Column("log_index", sa.BigInteger(), nullable=True))
    op.create_index(
        "policy_unlogged",
        "policy",
        ["created_at", "id"],
        sqlite_where=sa.text("log_index IS NULL"),
        postgresql_where=sa.text("log_index IS NULL"),
    )
    op.create_index("finding_made", "finding", ["found_at", "id"])
    for name, columns, where, unique in (
        ("finding_open", ["site_id", "object", "name"], "mended_at IS NULL", True),
        ("finding_unlogged", ["settled_at", "id"], "log_index IS NULL", False),
    ):
        op.create_index(
            name,
            "finding",
            columns,
            unique=unique,
            sqlite_where=sa.text(where),
            postgresql_where=sa.text(where),
        )
