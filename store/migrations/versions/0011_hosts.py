"""Several hosts: a credential of each, environments that choose by label, and what each rollout went to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("environment", sa.Column("host_labels", sa.JSON(), nullable=False, server_default=sa.text("'[]'")))
    op.add_column("environment", sa.Column("away", sa.String(), nullable=False, server_default="fail"))
    op.add_column("rollout", sa.Column("hosts", sa.JSON(), nullable=True))
    op.add_column("rollout", sa.Column("hosts_away", sa.JSON(), nullable=True))
    op.add_column("host", sa.Column("secret_sha256", sa.String(), nullable=True))
    op.create_index("host_secret", "host", ["secret_sha256"], unique=True)
