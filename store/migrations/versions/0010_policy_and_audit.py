"""Policies, decisions and approvals; a pin on environments; what a job waits for; the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("environment", sa.Column("pin", sa.JSON(), nullable=True))
    op.add_column("job", sa.Column("waits_for", sa.JSON(), nullable=True))
    op.create_table(
        "policy",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("site_id", sa.String(), nullable=False),
        sa.Column("env_id", sa.String(), nullable=True),
        sa.Column("subject_id", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("actor", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"]),
        sa.ForeignKeyConstraint(["env_id"], ["environment.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("subject_id", "version"),
    )
    op.create_index("ix_policy_site_id", "policy", ["site_id"])
    op.create_table(
        "policy_decision",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("rollout_id", sa.String(), nullable=False),
        sa.Column("site_id", sa.String(), nullable=False),
        sa.Column("env_id", sa.String(), nullable=False),
        sa.Column("artifact_id", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("policies", sa.JSON(), nullable=False),
        sa.Column("findings", sa.JSON(), nullable=False),
        sa.Column("approvals", sa.JSON(), nullable=False),
        sa.Column("override", sa.JSON(), nullable=True),
        sa.Column("judged_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("log_index", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollout.id"]),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"]),
        sa.ForeignKeyConstraint(["env_id"], ["environment.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("rollout_id"),
    )
    op.create_index("ix_policy_decision_site_id", "policy_decision", ["site_id"])
    _partial(
        "decision_unlogged", "policy_decision", ["decided_at", "id"], "log_index IS NULL AND decided_at IS NOT NULL"
    )
    op.create_table(
        "approval",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("rollout_id", sa.String(), nullable=False),
        sa.Column("artifact_id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("actor", sa.JSON(), nullable=True),
        sa.Column("note", sa.String(), nullable=True),
        sa.Column("given_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollout.id"]),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("rollout_id", "account_id"),
    )
    op.create_table(
        "audit_row",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("team_id", sa.String(), nullable=False),
        sa.Column("site_id", sa.String(), nullable=True),
        sa.Column("env_id", sa.String(), nullable=True),
        sa.Column("dialect", sa.String(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("actor", sa.JSON(), nullable=True),
        sa.Column("account_id", sa.String(), nullable=True),
        sa.Column("address", sa.String(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column("leaf", sa.String(), nullable=True),
        sa.Column("chain", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("seq"),
    )
    op.create_index("audit_team", "audit_row", ["team_id", "created_at", "id"])
    op.create_index("audit_site", "audit_row", ["site_id", "created_at", "id"])
    op.create_index("ix_audit_row_account_id", "audit_row", ["account_id"])
    _partial("audit_unchained", "audit_row", ["id"], "seq IS NULL")
    for statement in _chained_only(op.get_bind().dialect.name):
        op.execute(sa.text(statement))


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def _chained_only(dialect: str) -> list[str]:
    if dialect == "sqlite":
        refuse = "BEGIN SELECT RAISE(ABORT, 'audit_row is append-only'); END"
        return [
            f"CREATE TRIGGER audit_row_no_update BEFORE UPDATE ON audit_row WHEN OLD.seq IS NOT NULL {refuse}",
            f"CREATE TRIGGER audit_row_no_delete BEFORE DELETE ON audit_row {refuse}",
        ]
    return [
        "CREATE FUNCTION audit_row_append_only() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'audit_row is append-only'; END $$",
        "CREATE TRIGGER audit_row_no_update BEFORE UPDATE ON audit_row"
        " FOR EACH ROW WHEN (OLD.seq IS NOT NULL) EXECUTE FUNCTION audit_row_append_only()",
        "CREATE TRIGGER audit_row_no_delete BEFORE DELETE OR TRUNCATE ON audit_row"
        " FOR EACH STATEMENT EXECUTE FUNCTION audit_row_append_only()",
    ]
