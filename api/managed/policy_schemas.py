"""Bodies and rows of policies, decisions and the audit log."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.managed.answers import Row
from api.managed.schemas import Body

Json = dict[str, Any]


class Approve(Body):
    note: str | None = Field(default=None, max_length=500, description="What was looked at.")


class BreakGlass(Body):
    reason: str = Field(min_length=1, max_length=500, description="Why it cannot wait; it stays on the record.")


class PolicyRow(Row):
    id: str | None
    site_id: str
    env_id: str | None
    version: int = Field(description="0 where there never was one.")
    document: Json
    digest: str | None = Field(description="The hex SHA-256 of the document: what decisions name.")
    actor: Json | None
    created_at: str | None


class DecisionRow(Row):
    id: str
    deployment_id: str
    site_id: str
    env_id: str
    artifact_id: str
    outcome: Literal["held", "allowed", "refused"]
    policies: list[Json] = Field(description="The versions that were asked: `{id, version, digest, of}`.")
    findings: list[Json] = Field(description="What spoke against it: `{rule, message, policy_id, until?, …}`.")
    approvals: list[Json] = Field(description="Those that counted.")
    given: list[Json] = Field(description="Every approval there is, expired or not.")
    override: Json | None = Field(description="Who broke the glass, and why.")
    judged_at: str
    decided_at: str | None
    log_index: int | None


class ApprovalRow(Row):
    id: str
    deployment_id: str
    artifact_id: str
    account_id: str
    actor: Json | None
    note: str | None
    given_at: str


class AuditLogRow(Row):
    id: str
    at: str
    team_id: str
    site_id: str | None
    env_id: str | None
    dialect: Literal["managed", "miosa"]
    method: str
    path: str
    action: str
    actor: Json | None
    account_id: str | None
    address: str | None
    request_id: str
    seq: int | None = Field(description="Its place in the chain; null for a moment after the call.")
