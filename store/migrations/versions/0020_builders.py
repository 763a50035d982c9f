"""Builders with credentials of their own, and leases of what they work at."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "builder",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("secret_sha256", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("builder_secret", "builder", ["secret_sha256"], unique=True)
    op.create_table(
        "builder_lease",
        sa.Column("subject_id", sa.String(), nullable=False),
        sa.Column("builder_id", sa.String(), nullable=False),
        sa.Column("holder_sha256", sa.String(), nullable=False),
        sa.Column("heard_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("subject_id"),
    )
    op.create_index("builder_lease_heard", "builder_lease", ["heard_at"])
    op.create_index("builder_lease_builder", "builder_lease", ["builder_id"])
    op.add_column("build", sa.Column("builder_id", sa.String(), nullable=True))
    op.create_index("build_builder", "build", ["builder_id", "created_at", "id"])


def downgrade() -> None:
    op.drop_index("build_builder", "build")
    op.drop_column("build", "builder_id")
    op.drop_table("builder_lease")
    op.drop_table("builder")
