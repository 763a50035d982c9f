"""What answers hold of what stands around sites: accounts, keys, hosts, domains, endpoints, logs and requests."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.managed.answers import ErrorObject, Row
from api.managed.schemas import RedirectPolicy, Role

Json = dict[str, Any]


class HostRow(Row):
    id: str
    labels: list[str]
    public_key: str | None
    offered_key: str | None
    created_at: str
    last_seen_at: str | None


class HostJoined(HostRow):
    credential: str = Field(description="Shown once; empty where a request is replayed.")
    signing_keys: dict[str, str]
    trusted_root: str | None
    broker_root: str | None
    sigstore: str | None = Field(description="Whose keyless signatures count, where artifacts are signed without keys.")


class LogRow(Row):
    """`id` counts in the environment: what `Last-Event-ID` takes. `sequence` is that of the rollout whose instance it
    is, `release_id` what that rollout became: null before its switch."""

    id: int
    ts: str
    host_id: str
    sequence: int
    release_id: str | None
    instance: str
    stream: Literal["stdout", "stderr", "system"]
    line: str


class TallyRow(Row):
    """Percentiles of the time to answer, at most a tenth too high; null where nothing was asked."""

    requests: int
    status_2xx: int
    status_3xx: int
    status_4xx: int
    status_5xx: int
    bytes: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class MinuteRow(TallyRow):
    minute: str


class MetricsRow(Row):
    """`access_log`: whose requests this installation counts (services, all, off). Minutes without any are left out."""

    env_id: str
    access_log: str
    since: str
    until: str
    total: TallyRow
    minutes: list[MinuteRow]


class RequestLogRow(Row):
    """One request, without its query. `unlisted`: how many just before it are counted, and not listed."""

    id: int
    ts: str
    hostname: str
    method: str
    path: str
    status: int
    duration_ms: float
    bytes: int
    unlisted: int


class KeyRow(Row):
    id: str
    name: str
    kind: str
    prefix: str
    team_id: str
    account_id: str | None
    scopes: list[str]
    resource: Json | None
    ip_allowlist: list[str]
    created_at: str
    expires_at: str | None
    last_used_at: str | None
    revoked_at: str | None


class NewKeyRow(KeyRow):
    secret: str = Field(default="", description="Shown once; a replayed request does not show it again.")


class RecordRow(Row):
    type: str
    name: str
    value: str


class DomainRow(Row):
    """`dns_records` are to be made; `found_records` are what the last look saw, `points_here` whether it led here."""

    id: str
    hostname: str
    site_id: str
    env_id: str
    status: Literal["pending", "verified", "active", "failed", "removed"]
    primary: bool
    redirect_to_primary: bool
    redirect_policy: RedirectPolicy
    dns_records: list[RecordRow]
    instructions: str
    found_records: list[RecordRow]
    missing: str | None
    points_here: bool
    error: ErrorObject | None
    created_at: str
    checked_at: str | None
    verified_at: str | None
    tls_issued_at: str | None


class EndpointRow(Row):
    """`failing_since`: the first failure after the last success."""

    id: str
    url: str
    events: list[str]
    description: str | None
    enabled: bool
    resource: Json | None
    secret_preview: str
    previous_secret_until: str | None
    failing_since: str | None
    disabled_at: str | None
    disabled_reason: str | None
    created_at: str


class NewEndpointRow(EndpointRow):
    signing_secret: str = Field(default="", description="Shown once; a replayed request does not show it again.")


class TryRow(Row):
    """`error` is null where the answer was a 2xx."""

    at: str
    status: int | None
    error: str | None
    ms: int


class DeliveryRow(Row):
    """`replay_of`: the delivery that this one repeats."""

    id: str
    event_id: str
    event_type: str
    status: Literal["pending", "delivered", "failed", "canceled"]
    attempts: int
    tries: list[TryRow]
    replay_of: str | None
    created_at: str
    ended_at: str | None


class ForgeHookRow(Row):
    """`url` is what the forge calls; `forged` counts calls that the secret did not sign."""

    id: str
    site_id: str
    provider: Literal["github", "gitlab", "gitea"]
    url: str
    secret_preview: str
    forged: int
    forged_at: str | None
    created_at: str


class NewForgeHookRow(ForgeHookRow):
    secret: str = Field(default="", description="Shown once; a replayed request does not show it again.")


class ForgeCallRow(Row):
    """`call_id` is the forge's own; `repeats` counts later calls with it, which changed nothing."""

    id: str
    call_id: str
    event: str
    verdict: Literal["accepted", "ignored", "refused"]
    text: str = Field(description="`deployed job_…`, `ended job_…`, `ignored: why`, `refused: why`, `repeated: …`")
    reason: str | None
    ref: str | None
    commit_sha: str | None
    job_id: str | None
    repeats: int
    created_at: str


class TeamRow(Row):
    id: str
    name: str
    slug: str
    created_at: str


class ProjectRow(Row):
    id: str
    team_id: str
    name: str
    slug: str
    default: bool
    created_at: str


class MemberRow(Row):
    team_id: str
    account_id: str
    name: str
    email: str | None
    role: Role
    project_ids: list[str] | None
    created_at: str


class AccountRow(Row):
    account: Json | None
    team: TeamRow
    key: KeyRow
    role: str
    scopes: list[str]


class Budget(Row):
    limit: int
    remaining: int
    reset: int


class KeyBudgets(Row):
    read: Budget
    write: Budget
    create: Budget


class RateLimitsRow(Row):
    key: KeyBudgets
    team: Budget
