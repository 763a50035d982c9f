"""What the managed dialect answers, as the client gives it. Fields that this version does not know are kept.

Only what every server must send is required: an older or newer server never breaks a reader of what it does send.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict

Json = dict[str, Any]
FINAL: Final = frozenset({"succeeded", "failed", "canceled", "superseded"})


class Resource(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    def as_dict(self) -> Json:
        """Everything that the server sent."""
        return self.model_dump(mode="json", exclude_unset=True)


class Job(Resource):
    """`result` on success, `error` on failure; `resource` is `{type, id, site_id?, env_id?}`.

    `waits_for` is set while a policy holds it: `reasons`, each with its `message`.
    """

    id: str
    type: str
    status: str
    progress: int = 0
    stage: str | None = None
    created_at: str | None = None
    finished_at: str | None = None
    resource: Json = {}
    result: Json | None = None
    error: Json | None = None
    waits_for: Json | None = None
    links: Json = {}

    @property
    def ended(self) -> bool:
        return self.status in FINAL

    @property
    def held(self) -> bool:
        """It waits for people or for the end of a freeze, not for its turn."""
        return self.waits_for is not None and not self.ended


class Site(Resource):
    id: str
    name: str
    slug: str = ""
    status: str = ""
    runtime: str | None = None
    project_id: str | None = None
    team_id: str | None = None
    production_env_id: str | None = None
    repository: str | None = None
    git_url: str | None = None
    default_branch: str = "main"
    created_at: str | None = None


class Environment(Resource):
    id: str
    site_id: str
    kind: str
    slug: str = ""
    branch: str = ""
    status: str = ""
    url: str | None = None
    preview_url: str | None = None
    active_release_id: str | None = None
    instances: int | None = None
    bake_seconds: int = 0
    pin: Json | None = None
    hosts: list[str] = []
    host_labels: list[str] = []
    away: str = "fail"
    expires_at: str | None = None
    created_at: str | None = None


class Drift(Resource):
    id: str
    env_id: str = ""
    host_id: str = ""
    kind: str = ""
    release_seq: int = 0
    what: str = ""
    job_id: str | None = None
    found_at: str | None = None
    mended_at: str | None = None


class Finding(Resource):
    """A damaged object: `state` is open, mended or lost."""

    id: str
    site_id: str = ""
    object: str = ""
    name: str = ""
    damage: str = ""
    state: str = ""
    mended_by: str | None = None
    tried: list[dict[str, Any]] = []
    found_at: str | None = None
    mended_at: str | None = None


class Build(Resource):
    id: str
    site_id: str
    env_id: str
    ref: str
    status: str
    stage: str | None = None
    commit_sha: str | None = None
    profile: str | None = None
    artifact_id: str | None = None
    job_id: str | None = None
    error: Json | None = None
    uploaded_bytes: int | None = None
    duration_ms: int | None = None
    builder: str | None = None
    created_at: str | None = None


class Cache(Resource):
    """What an environment's builds keep for one lock file, which `key` stands for."""

    env_id: str
    key: str
    sha256: str = ""
    size_bytes: int = 0
    build_id: str | None = None
    created_at: str | None = None
    used_at: str | None = None


class Artifact(Resource):
    """`digest` is `sha256:` and the hex of the canonical manifest; `links` lead to the documents that prove it."""

    id: str
    digest: str
    site_id: str = ""
    size_bytes: int = 0
    files: int = 0
    kind: str = "static"
    run: Json | None = None
    commit_sha: str | None = None
    ref: str | None = None
    build_id: str | None = None
    signature: Json = {}
    links: Json = {}
    created_at: str | None = None


class Deployment(Resource):
    id: str
    site_id: str
    env_id: str
    kind: str
    status: str
    stage: str | None = None
    artifact_id: str | None = None
    release_id: str | None = None
    previous_release_id: str | None = None
    job_id: str | None = None
    error: Json | None = None
    created_at: str | None = None


class Release(Resource):
    id: str
    artifact_id: str
    current: bool = False
    deployment_id: str | None = None
    ref: str | None = None
    deployed_at: str | None = None
    actor: Json | None = None
    config: Json = {}


class LogLine(Resource):
    """`id` counts in the environment. `sequence` and `instance` name who printed it; both are empty in a remark."""

    id: int = 0
    ts: str = ""
    sequence: int = 0
    release_id: str | None = None
    instance: str = ""
    stream: str = "stdout"
    line: str = ""


class Metrics(Resource):
    """`total` and each of `minutes`: requests, status_2xx … status_5xx, bytes, p50_ms, p95_ms, p99_ms."""

    access_log: str = "all"
    since: str | None = None
    until: str | None = None
    total: Json = {}
    minutes: list[Json] = []


class RequestLog(Resource):
    """One request of a visitor."""

    id: int = 0
    ts: str = ""
    method: str = ""
    path: str = ""
    status: int = 0
    duration_ms: float = 0.0
    bytes: int = 0
    unlisted: int = 0


class Key(Resource):
    """`secret` is there once, in the answer that made or rolled it."""

    id: str
    name: str
    prefix: str = ""
    scopes: list[str] = []
    resource: Json | None = None
    created_at: str | None = None
    expires_at: str | None = None
    last_used_at: str | None = None
    revoked_at: str | None = None
    secret: str | None = None


class Value(Resource):
    """One version of a variable or a secret; of a secret there is no `value`."""

    key: str
    version: int
    version_id: str
    value: str | None = None
    source: str | None = None
    current: bool = True
    live: bool = False
    actor: Json | None = None
    updated_at: str | None = None
    revoked_at: str | None = None


class Host(Resource):
    """`offered_key`: another key than the pinned one, which waits to be accepted."""

    id: str
    public_key: str | None = None
    offered_key: str | None = None
    labels: list[str] = []
    last_seen_at: str | None = None


class JoinedHost(Host):
    """A host that was let in: its credential, shown once, and what it is to trust by file name."""

    credential: str
    signing_keys: dict[str, str] = {}
    trusted_root: str | None = None
    broker_root: str | None = None
    sigstore: str | None = None


class Builder(Resource):
    id: str
    created_at: str | None = None
    last_used_at: str | None = None


class AddedBuilder(Builder):
    """A builder that was let in: its credential, shown once, and what vouches for the broker."""

    credential: str
    broker_root: str | None = None


class Team(Resource):
    id: str
    name: str
    slug: str = ""


class Project(Resource):
    id: str
    name: str
    slug: str = ""
    team_id: str | None = None
    default: bool = False


class Member(Resource):
    account_id: str
    role: str
    team_id: str | None = None
    name: str = ""
    email: str | None = None
    project_ids: list[str] | None = None


class Identity(Resource):
    """Who a key acts as."""

    account: Json | None = None
    team: Json | None = None
    key: Json | None = None
    role: str | None = None
    scopes: list[str] = []


class WebhookEndpoint(Resource):
    """`signing_secret` is there once, in the answer that made or rotated it."""

    id: str
    url: str
    events: list[str] = []
    description: str | None = None
    enabled: bool = True
    failing_since: str | None = None
    disabled_reason: str | None = None
    signing_secret: str | None = None


class Delivery(Resource):
    """One event on its way to one endpoint; `tries` are `{at, status, error, ms}`."""

    id: str
    event_id: str = ""
    event_type: str = ""
    status: str = ""
    attempts: int = 0
    tries: list[Json] = []
    replay_of: str | None = None
    created_at: str | None = None


class Domain(Resource):
    """`dns_records` are to be made: `{type, name, value}`."""

    id: str
    hostname: str
    status: str = ""
    primary: bool = False
    redirect_to_primary: bool = False
    redirect_policy: str = "none"
    dns_records: list[Json] = []
    instructions: str = ""
    missing: str | None = None
    points_here: bool = False
    verified_at: str | None = None
    tls_issued_at: str | None = None
    created_at: str | None = None


class ForgeHook(Resource):
    """`secret` is there once, in the answer that made it."""

    id: str
    provider: str
    url: str = ""
    forged: int = 0
    secret: str | None = None
    created_at: str | None = None


class ForgeCall(Resource):
    id: str
    call_id: str = ""
    event: str = ""
    verdict: str = ""
    text: str = ""
    reason: str | None = None
    ref: str | None = None
    commit_sha: str | None = None
    job_id: str | None = None
    repeats: int = 0
    created_at: str | None = None


class ForgeLink(Resource):
    """Where a site reports to; its token is never shown."""

    site_id: str
    provider: str
    api_url: str = ""
    repository: str = ""
    statuses: bool = True
    comments: bool = True
    failing_since: str | None = None
    last_error: str | None = None


class ForgeReport(Resource):
    """What the forge is to show of a commit or a branch; `tries` are `{at, status, error, ms}`."""

    id: str
    kind: str
    status: str = ""
    state: str | None = None
    commit_sha: str | None = None
    branch: str | None = None
    environment: str | None = None
    job_id: str | None = None
    attempts: int = 0
    tries: list[Json] = []
    created_at: str | None = None


class Notification(Resource):
    """`url` is the service alone."""

    id: str
    url: str = ""
    events: list[str] = []
    description: str | None = None
    enabled: bool = True
    failing_since: str | None = None
    disabled_reason: str | None = None
