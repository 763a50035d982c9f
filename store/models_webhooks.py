"""Webhooks out: endpoints, the events that somebody listens to, and their deliveries, which are the outbox.

Webhooks in: hooks that a forge calls, and what became of each call.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from store.models import json_column, utcnow

Json = dict[str, Any]


class WebhookEndpoint(SQLModel, table=True):
    """Where a team's events go. `dialect`: managed | miosa, whose names `events` are in and whose form bodies have.

    `pin` is that of the key which made it: events from outside of it are not sent. `retries` counts the tries after
    the first. Hidden by the vault of webhooks, as one JSON text `{"secret", "headers"}`; the previous one signs beside
    it until `previous_until`. `failing_since` is the first failure after the last success.
    """

    __tablename__ = "webhook_endpoint"
    __table_args__ = (Index("webhook_endpoint_team", "team_id", "created_at", "id"),)
    id: str = Field(primary_key=True)
    team_id: str = Field(foreign_key="team.id")
    dialect: str
    url: str
    name: str | None = None
    description: str | None = None
    events: list[str] = Field(sa_column=Column(JSON, nullable=False))
    pin: Json | None = json_column()
    labels: Json | None = json_column()
    header_names: list[str] = Field(sa_column=Column(JSON, nullable=False))
    retries: int
    enabled: bool = True
    preview: str
    ciphertext: bytes
    wrapped_key: bytes
    key_id: str
    previous_ciphertext: bytes | None = None
    previous_wrapped_key: bytes | None = None
    previous_key_id: str | None = None
    previous_until: datetime | None = None
    failing_since: datetime | None = None
    disabled_at: datetime | None = None
    disabled_reason: str | None = None
    actor: Json | None = json_column()
    created_at: datetime = Field(default_factory=utcnow)


class Event(SQLModel, table=True):
    """What happened, as it was in the transaction in which it did. Kept only where an endpoint listens to it."""

    __table_args__ = (Index("event_created", "created_at"),)
    id: str = Field(primary_key=True)
    team_id: str = Field(foreign_key="team.id")
    type: str
    site_id: str | None = None
    env_id: str | None = None
    data: Json = Field(sa_column=Column(JSON, nullable=False))
    created_at: datetime = Field(default_factory=utcnow)


class Delivery(SQLModel, table=True):
    """One event for one endpoint. `state`: pending | delivered | failed | canceled.

    `tries` are `{at, status, error, ms}`. A pending one whose `due_at` has passed has no run that looks after it:
    it is started (again). `replay_of` names the delivery that this one repeats.
    """

    __table_args__ = (
        Index("delivery_endpoint", "endpoint_id", "created_at", "id"),
        Index(
            "delivery_due", "due_at", sqlite_where=text("ended_at IS NULL"), postgresql_where=text("ended_at IS NULL")
        ),
        UniqueConstraint("endpoint_id", "replay_id"),
    )
    id: str = Field(primary_key=True)
    team_id: str
    event_id: str = Field(foreign_key="event.id", index=True)
    endpoint_id: str = Field(foreign_key="webhook_endpoint.id")
    subscription_id: str | None = Field(default=None, index=True)
    state: str = "pending"
    tries: list[Json] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    due_at: datetime
    replay_of: str | None = None
    replay_id: str | None = None
    created_at: datetime = Field(default_factory=utcnow)
    ended_at: datetime | None = None


class EventSubscription(SQLModel, table=True):
    """Sends events of one type (or `prefix.*`), narrowed by a flat filter on their data, to a webhook."""

    __tablename__ = "event_subscription"
    __table_args__ = (Index("event_subscription_team", "team_id", "created_at", "id"),)
    id: str = Field(primary_key=True)
    team_id: str = Field(foreign_key="team.id")
    endpoint_id: str = Field(foreign_key="webhook_endpoint.id", index=True)
    event_type: str
    filter: Json | None = json_column()
    workspace_id: str | None = None
    project_id: str | None = None
    active: bool = True
    created_at: datetime = Field(default_factory=utcnow)


class ForgeHook(SQLModel, table=True):
    """An address that a forge calls when it is pushed to. `provider`: github | gitlab | gitea.

    The secret is hidden by the vault of webhooks. Calls that it did not sign are counted, and not kept.
    """

    __tablename__ = "forge_hook"
    id: str = Field(primary_key=True)
    team_id: str = Field(foreign_key="team.id")
    site_id: str = Field(foreign_key="site.id", index=True)
    provider: str
    ciphertext: bytes
    wrapped_key: bytes
    key_id: str
    preview: str
    forged: int = 0
    forged_at: datetime | None = None
    actor: Json | None = json_column()
    created_at: datetime = Field(default_factory=utcnow)


class ForgeCall(SQLModel, table=True):
    """One call, by the id that the forge gave it. `verdict`: accepted | ignored | refused; `reason` in words."""

    __tablename__ = "forge_call"
    __table_args__ = (Index("forge_call_hook", "hook_id", "created_at", "id"), UniqueConstraint("hook_id", "call_id"))
    id: str = Field(primary_key=True)
    hook_id: str = Field(foreign_key="forge_hook.id")
    call_id: str
    event: str
    verdict: str
    reason: str | None = None
    ref: str | None = None
    before_sha: str | None = Field(default=None, index=True)
    commit_sha: str | None = None
    job_id: str | None = None
    repeats: int = 0
    created_at: datetime = Field(default_factory=utcnow)
