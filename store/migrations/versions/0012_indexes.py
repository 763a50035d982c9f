"""Indexes for what is asked often: current rows (SQLite never used the partial ones as they were), the newest rows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

CURRENT = {"release_current": ("release", ["env_id"]), "config_value_current": ("config_value", ["owner_id", "name"])}


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for name, (table, columns) in CURRENT.items():
            op.drop_index(name, table)
            op.create_index(name, table, columns, unique=True, sqlite_where=sa.text("current = 1"))
    op.create_index("job_created", "job", ["created_at", "id"])
    op.create_index("audit_created", "audit_row", ["created_at", "id"])
