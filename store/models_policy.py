"""The tables of policies: their versions, what was decided of a rollout, who approved it; and the audit log.

`subject` columns are ids. A policy's version is never changed; a decision is final once it is `allowed` or `refused`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from store.models import Json, json_column, utcnow
from store.models_ledger import listen, never_replaced


class Policy(SQLModel, table=True):
    """One version of a site's policy (`env_id` None) or of an environment's. The newest counts; empty is none.

    `subject_id` is the environment or the site: what the versions are counted in. `document` is what
    `headway.policy.PolicyDocument` stores, `digest` its hex SHA-256. `log_index`: its entry in the ledger, where hosts
    want it from.
    """

    __table_args__ = (
        UniqueConstraint("subject_id", "version"),
        Index(
            "policy_unlogged",
            "created_at",
            "id",
            sqlite_where=text("log_index IS NULL"),
            postgresql_where=text("log_index IS NULL"),
        ),
    )
    id: str = Field(primary_key=True)
    site_id: str = Field(foreign_key="site.id", index=True)
    env_id: str | None = Field(default=None, foreign_key="environment.id")
    subject_id: str
    version: int
    document: Json = Field(sa_column=Column(JSON, nullable=False))
    digest: str
    actor: Json | None = json_column()
    log_index: int | None = Field(default=None, sa_type=BigInteger)
    created_at: datetime = Field(default_factory=utcnow)


class Decision(SQLModel, table=True):
    """What was decided of a rollout, once per rollout. `outcome`: held | allowed | refused.

    `policies` are `{id, version, digest, of}`, `findings` what spoke against it (`headway.policy.Finding`), `approvals`
    those that counted, `override` who broke the glass: `{actor, account_id, reason, at}`. `judged_at` is when it was
    last looked at; `decided_at` is set with the final outcome, and only then is it entered into the ledger.
    """

    __tablename__ = "policy_decision"
    __table_args__ = (
        Index(
            "decision_unlogged",
            "decided_at",
            "id",
            sqlite_where=text("log_index IS NULL AND decided_at IS NOT NULL"),
            postgresql_where=text("log_index IS NULL AND decided_at IS NOT NULL"),
        ),
    )
    id: str = Field(primary_key=True)
    rollout_id: str = Field(unique=True, foreign_key="rollout.id")
    site_id: str = Field(foreign_key="site.id", index=True)
    env_id: str = Field(foreign_key="environment.id")
    artifact_id: str
    outcome: str
    policies: list[Json] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    findings: list[Json] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    approvals: list[Json] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    override: Json | None = json_column()
    judged_at: datetime = Field(default_factory=utcnow)
    decided_at: datetime | None = None
    log_index: int | None = Field(default=None, sa_type=BigInteger)
    created_at: datetime = Field(default_factory=utcnow)


class Approval(SQLModel, table=True):
    """One account's word for one rollout of one artifact. Given again, it is renewed."""

    __table_args__ = (UniqueConstraint("rollout_id", "account_id"),)
    id: str = Field(primary_key=True)
    rollout_id: str = Field(foreign_key="rollout.id")
    artifact_id: str
    account_id: str = Field(foreign_key="account.id")
    actor: Json | None = json_column()
    note: str | None = None
    given_at: datetime = Field(default_factory=utcnow)
    created_at: datetime = Field(default_factory=utcnow)


class AuditRow(SQLModel, table=True):
    """One call that changed something, written in the same transaction as the change.

    `seq` and `chain` are None until the signing worker has chained it: `leaf` is the SHA-256 of the row in canonical
    form, `chain` that of the chain before and this leaf. `site_id` and `env_id` are what the path names.
    """

    __tablename__ = "audit_row"
    __table_args__ = (
        Index("audit_team", "team_id", "created_at", "id"),
        Index("audit_site", "site_id", "created_at", "id"),
        Index("audit_created", "created_at", "id"),
        Index(
            "audit_unchained",
            "id",
            sqlite_where=text("seq IS NULL"),
            postgresql_where=text("seq IS NULL"),
        ),
    )
    id: str = Field(primary_key=True)
    team_id: str
    site_id: str | None = None
    env_id: str | None = None
    dialect: str
    method: str
    path: str
    action: str
    actor: dict[str, Any] | None = json_column()
    account_id: str | None = Field(default=None, index=True)
    address: str | None = None
    request_id: str
    seq: int | None = Field(default=None, sa_type=BigInteger, unique=True)
    leaf: str | None = None
    chain: str | None = None
    created_at: datetime = Field(default_factory=utcnow)


def chained_only(dialect: str) -> list[str]:
    """The statements that make chained rows of the audit log refuse changes. The migration carries the same."""
    if dialect == "sqlite":
        refuse = "BEGIN SELECT RAISE(ABORT, 'audit_row is append-only'); END"
        return [
            f"CREATE TRIGGER audit_row_no_update BEFORE UPDATE ON audit_row WHEN OLD.seq IS NOT NULL {refuse}",
            f"CREATE TRIGGER audit_row_no_delete BEFORE DELETE ON audit_row {refuse}",
            never_replaced("audit_row", (("id",), ("seq",))),
        ]
    return [
        "CREATE FUNCTION audit_row_append_only() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'audit_row is append-only'; END $$",
        "CREATE TRIGGER audit_row_no_update BEFORE UPDATE ON audit_row"
        " FOR EACH ROW WHEN (OLD.seq IS NOT NULL) EXECUTE FUNCTION audit_row_append_only()",
        "CREATE TRIGGER audit_row_no_delete BEFORE DELETE OR TRUNCATE ON audit_row"
        " FOR EACH STATEMENT EXECUTE FUNCTION audit_row_append_only()",
    ]


for _dialect in ("sqlite", "postgresql"):
    for _statement in chained_only(_dialect):
        listen("audit_row", _statement, _dialect)
