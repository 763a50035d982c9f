"""SQLite refuses `INSERT OR REPLACE` where rows are never changed: no trigger for deletes is asked there."""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

KEYS = {
    "ledger_entry": (("index",), ("subject",)),
    "ledger_node": (("level", "index"),),
    "ledger_head": (("size",),),
    "ledger_document": (("name", "version"),),
    "audit_row": (("id",), ("seq",)),
}


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        return
    for table, keys in KEYS.items():
        same = [" AND ".join(f'"{column}" = NEW."{column}"' for column in key) for key in (("rowid",), *keys)]
        found = " OR ".join(f"EXISTS (SELECT 1 FROM {table} WHERE {one})" for one in same)  # noqa: S608
        op.execute(
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} WHEN {found}"
            f" BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )


def downgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        return
    for table in KEYS:
        op.execute(f"DROP TRIGGER {table}_no_replace")
