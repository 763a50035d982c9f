"""What a site tells its forge: how its jobs went, as statuses of commits and as comments on pull requests."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from store.models import json_column, utcnow

Json = dict[str, Any]


class ForgeLink(SQLModel, table=True):
    """The forge that a site reports to. `provider`: github | gitlab | gitea; `repository` is its path there.

    The token is hidden by the vault of webhooks. `failing_since` is the first report that was given up after the last
    one that arrived; `last_error` says why.
    """

    __tablename__ = "forge_link"
    id: str = Field(primary_key=True)
    team_id: str = Field(foreign_key="team.id")
    site_id: str = Field(foreign_key="site.id", unique=True)
    provider: str
    api_url: str
    repository: str
    statuses: bool = True
    comments: bool = True
    ciphertext: bytes
    wrapped_key: bytes
    key_id: str
    failing_since: datetime | None = None
    last_error: str | None = None
    actor: Json | None = json_column()
    created_at: datetime = Field(default_factory=utcnow)
    updated_at: datetime = Field(default_factory=utcnow)


class ForgeReport(SQLModel, table=True):
    """What the forge should show of one subject, and whether it does. `kind`: status | comment | check.

    `subject` is `<commit> <context>` of a status, the branch of a comment. `wanted` is as it should be by revision
    `rev`, of the job `job_id`; `begun_rev` is the last one that was on its way, `sent_rev` the last that arrived.
    `state`: pending | delivered | failed; a pending one whose `due_at` has passed has no run that looks after it.
    `tries` are of the revision, `{at, status, error, ms}`. `comments` are the forge's ids by pull request.
    """

    __tablename__ = "forge_report"
    __table_args__ = (
        UniqueConstraint("link_id", "kind", "subject"),
        Index("forge_report_link", "link_id", "created_at", "id"),
        Index(
            "forge_report_due",
            "due_at",
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
    )
    id: str = Field(primary_key=True)
    link_id: str = Field(foreign_key="forge_link.id")
    site_id: str
    env_id: str | None = None
    kind: str
    subject: str
    job_id: str | None = None
    job_at: datetime | None = None
    wanted: Json = Field(sa_column=Column(JSON, nullable=False))
    rev: int = 1
    begun_rev: int = 0
    sent_rev: int = 0
    state: str = "pending"
    tries: list[Json] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    comments: Json = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    due_at: datetime
    created_at: datetime = Field(default_factory=utcnow)
    ended_at: datetime | None = None
