"""Webhooks out and in: endpoints, events, deliveries, subscriptions, hooks of forges. Domains of the callers' own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _endpoints()
    _events()
    _subscriptions()
    _domains()
    _forges()


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _endpoints() -> None:
    op.create_table(
        "webhook_endpoint",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("team_id", sa.String(), nullable=False),
        sa.Column("dialect", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("description", sa.String(), nullable=True),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("pin", sa.JSON(), nullable=True),
        sa.Column("labels", sa.JSON(), nullable=True),
        sa.Column("header_names", sa.JSON(), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("preview", sa.String(), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("previous_ciphertext", sa.LargeBinary(), nullable=True),
        sa.Column("previous_wrapped_key", sa.LargeBinary(), nullable=True),
        sa.Column("previous_key_id", sa.String(), nullable=True),
        _moment("previous_until", nullable=True),
        _moment("failing_since", nullable=True),
        _moment("disabled_at", nullable=True),
        sa.Column("disabled_reason", sa.String(), nullable=True),
        sa.Column("actor", sa.JSON(), nullable=True),
        _moment("created_at"),
        sa.ForeignKeyConstraint(["team_id"], ["team.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("webhook_endpoint_team", "webhook_endpoint", ["team_id", "created_at", "id"])


def _events() -> None:
    op.create_table(
        "event",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("team_id", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("site_id", sa.String(), nullable=True),
        sa.Column("env_id", sa.String(), nullable=True),
        sa.Column("data", sa.JSON(), nullable=False),
        _moment("created_at"),
        sa.ForeignKeyConstraint(["team_id"], ["team.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("event_created", "event", ["created_at"])
    op.create_table(
        "delivery",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("team_id", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("endpoint_id", sa.String(), nullable=False),
        sa.Column("subscription_id", sa.String(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("tries", sa.JSON(), nullable=False),
        _moment("due_at"),
        sa.Column("replay_of", sa.String(), nullable=True),
        sa.Column("replay_id", sa.String(), nullable=True),
        _moment("created_at"),
        _moment("ended_at", nullable=True),
        sa.ForeignKeyConstraint(["event_id"], ["event.id"]),
        sa.ForeignKeyConstraint(["endpoint_id"], ["webhook_endpoint.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("endpoint_id", "replay_id"),
    )
    op.create_index("ix_delivery_event_id", "delivery", ["event_id"])
    op.create_index("ix_delivery_subscription_id", "delivery", ["subscription_id"])
    op.create_index("delivery_endpoint", "delivery", ["endpoint_id", "created_at", "id"])
    op.create_index(
        "delivery_due",
        "delivery",
        ["due_at"],
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )


def _subscriptions() -> None:
    op.create_table(
        "event_subscription",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("team_id", sa.String(), nullable=False),
        sa.Column("endpoint_id", sa.String(), nullable=False),
        sa.Column("event_type", sa.String(), nullable=False),
        sa.Column("filter", sa.JSON(), nullable=True),
        sa.Column("workspace_id", sa.String(), nullable=True),
        sa.Column("project_id", sa.String(), nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        _moment("created_at"),
        sa.ForeignKeyConstraint(["team_id"], ["team.id"]),
        sa.ForeignKeyConstraint(["endpoint_id"], ["webhook_endpoint.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_event_subscription_endpoint_id", "event_subscription", ["endpoint_id"])
    op.create_index("event_subscription_team", "event_subscription", ["team_id", "created_at", "id"])


def _domains() -> None:
    op.create_table(
        "domain",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("team_id", sa.String(), nullable=False),
        sa.Column("site_id", sa.String(), nullable=False),
        sa.Column("env_id", sa.String(), nullable=False),
        sa.Column("hostname", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("token", sa.String(), nullable=False),
        sa.Column("redirect_to_primary", sa.Boolean(), nullable=False),
        sa.Column("redirect_policy", sa.String(), nullable=False),
        sa.Column("points_here", sa.Boolean(), nullable=False),
        sa.Column("found", sa.JSON(), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("actor", sa.JSON(), nullable=True),
        _moment("created_at"),
        _moment("checked_at", nullable=True),
        _moment("verified_at", nullable=True),
        _moment("tls_issued_at", nullable=True),
        _moment("deleted_at", nullable=True),
        sa.ForeignKeyConstraint(["team_id"], ["team.id"]),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"]),
        sa.ForeignKeyConstraint(["env_id"], ["environment.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_domain_team_id", "domain", ["team_id"])
    op.create_index("ix_domain_hostname", "domain", ["hostname"])
    op.create_index("domain_site", "domain", ["site_id", "created_at", "id"])
    op.create_index(
        "domain_env",
        "domain",
        ["env_id", "hostname"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )


def _forges() -> None:
    op.create_table(
        "forge_hook",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("team_id", sa.String(), nullable=False),
        sa.Column("site_id", sa.String(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("preview", sa.String(), nullable=False),
        sa.Column("forged", sa.Integer(), nullable=False),
        _moment("forged_at", nullable=True),
        sa.Column("actor", sa.JSON(), nullable=True),
        _moment("created_at"),
        sa.ForeignKeyConstraint(["team_id"], ["team.id"]),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_forge_hook_site_id", "forge_hook", ["site_id"])
    op.create_table(
        "forge_call",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("hook_id", sa.String(), nullable=False),
        sa.Column("call_id", sa.String(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("ref", sa.String(), nullable=True),
        sa.Column("commit_sha", sa.String(), nullable=True),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("repeats", sa.Integer(), nullable=False),
        _moment("created_at"),
        sa.ForeignKeyConstraint(["hook_id"], ["forge_hook.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("hook_id", "call_id"),
    )
    op.create_index("forge_call_hook", "forge_call", ["hook_id", "created_at", "id"])
