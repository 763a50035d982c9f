"""What requests may hold, and what answers hold: the OpenAPI document is made of these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

Json = dict[str, Any]
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"\S")]
Slug = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Id = Annotated[str, Field(pattern=r"^[a-z]+_[0-9A-Za-z]{4,32}$")]
Ref = Annotated[str, Field(min_length=1, max_length=255)]
HostLabel = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=/-]{0,62}$")]
Role = Literal["owner", "admin", "site_manager", "observer", "billing"]
JobStatus = Literal["queued", "running", "succeeded", "failed", "canceled"]
RunStatus = Literal["queued", "running", "succeeded", "failed", "canceled", "superseded"]
RolloutStatus = Literal["waiting", "held", "queued", "running", "succeeded", "failed", "canceled", "superseded"]
ResourceType = Literal[
    "site", "environment", "build", "deployment", "domain", "sandbox", "command", "retention", "integrity"
]
JobType = Literal[
    "site.create",
    "site.delete",
    "environment.create",
    "environment.delete",
    "environment.protect",
    "environment.restart",
    "environment.scale",
    "environment.suspend",
    "environment.resume",
    "environment.repair",
    "build.run",
    "deployment.roll",
    "deployment.promote",
    "deployment.rollback",
    "deployment.push",
    "deployment.stop",
    "domain.attach",
    "domain.detach",
    "sandbox.exec",
    "environment.run",
    "retention.run",
    "integrity.scrub",
]


class Body(BaseModel):
    """Unknown fields are refused: a silent typo in `clean` or `ref` is costly."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Nothing(Body):
    """An empty body, or none."""


class SiteCreate(Body):
    name: Name
    slug: Slug | None = Field(default=None, description="Derived from the name if left out; unique in the team.")
    runtime: Literal["static", "node", "python", "binary", "auto", "wordpress"] = "auto"
    profile: Literal["auto", "static", "dynamic", "bedrock", "vanilla"] = "auto"
    project_id: Id | None = Field(default=None, description="The team's default project if left out.")
    php_version: str | None = Field(default=None, max_length=20)
    repository: str | None = Field(
        None, min_length=1, max_length=1000, description="https://, ssh:// or an allowed file:// address."
    )
    default_branch: str = Field(default="main", min_length=1, max_length=250)


class SiteUpdate(Body):
    name: Name | None = None
    project_id: Id | None = None
    default_branch: str | None = Field(default=None, min_length=1, max_length=250)
    profile: Literal["auto", "static", "dynamic"] | None = Field(
        default=None, description="What builds are to make from now on; auto: what each commit turns out to be."
    )


class EnvironmentCreate(Body):
    kind: Literal["staging", "preview"]
    branch: str = Field(min_length=1, max_length=250)
    ephemeral: bool = Field(default=False, description="Ends by itself when it is idle, unless it is renewed.")


class EnvironmentUpdate(Body):
    bake_seconds: int | None = Field(
        default=None, ge=0, le=3600, description="How long a new release is watched before it counts; 0: not at all."
    )
    pinned: bool | None = Field(default=None, description="Build, but hold whatever is new. Rollbacks go ahead.")
    pin_reason: str | None = Field(default=None, max_length=500, description="Why; with `pinned`.")
    host_labels: list[HostLabel] | None = Field(
        default=None,
        max_length=20,
        description="Rollouts go to every host that carries all of these; empty: to where they go now (operator).",
    )
    away: Literal["fail", "skip"] | None = Field(
        default=None, description="What a rollout does about a host that does not answer. Skipped, it catches up."
    )


class Scale(Body):
    instances: int = Field(ge=1, le=8, description="Of the web process, on each host, until it is scaled again.")


class RunCreate(Body):
    command: str = Field(
        min_length=1, max_length=65536, pattern=r"^[^\x00]+$", description="For `sh -c`, in the release's tree."
    )
    timeout: int = Field(default=600, ge=1, le=3600, description="Seconds after which it is killed.")
    input_id: Id | None = Field(default=None, description="What it finds on its standard input; nothing if left out.")


class InputRow(BaseModel):
    id: str = Field(description="For `input_id` of a command.")
    env_id: str
    received: int = Field(description="Bytes that are here: go on from there.")
    whole: bool = Field(description="Whether its end is here, so that a command may have it.")


class BuildCreate(Body):
    ref: Ref | None = Field(default=None, description="What `git rev-parse` takes; the branch if left out.")
    clean: bool = Field(default=False, description="Skip the build cache.")


class DeploymentCreate(Body):
    artifact_id: Id


class SiteDeploymentCreate(Body):
    """Exactly one of `build_id`, `artifact_id` and `ref`. With `ref` it is built first."""

    target: str = Field(
        default="production", min_length=1, max_length=250, description="An environment's id, slug or kind."
    )
    build_id: Id | None = None
    artifact_id: Id | None = None
    ref: Ref | None = None
    clean: bool = False


class Rollback(Body):
    release_id: Id | None = Field(default=None, description="The one before the deployment if left out.")
    keep_config: bool = Field(default=False, description="Go back to the code alone, under today's configuration.")


class Promote(Body):
    to_env: str = Field(min_length=1, max_length=250, description="An environment's id, slug or kind.")


class VariableSet(Body):
    value: str = Field(description="Text of at most 64 KiB.")


class SecretSet(Body):
    value: SecretStr = Field(description="Text of at most 64 KiB; never shown again.")


class SecretRevoke(Body):
    version_id: Id


class HostJoin(Body):
    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    labels: list[HostLabel] = Field(default=[], max_length=50)


class HostLabels(Body):
    labels: list[HostLabel] = Field(max_length=50, description="Exactly these from now on.")


class HostAccept(Body):
    public_key: str = Field(max_length=100, description="The key that the host offers, as it prints it itself.")


class Pin(Body):
    """A key's resource constraint."""

    type: Literal["team", "project", "site", "environment"]
    id: Id


Duration = Annotated[str, Field(pattern=r"^[0-9]{1,9}[smhdwy]$", examples=["90d"])]
Networks = Annotated[list[str], Field(max_length=100)]
ScopeList = (
    Annotated[list[Annotated[str, Field(max_length=60)]], Field(max_length=100)]
    | Annotated[str, Field(max_length=60, description="The name of a preset.")]
)


class KeyCreate(Body):
    name: Name
    scopes: ScopeList
    resource: Pin | None = None
    expires_in: Duration = "90d"
    ip_allowlist: Networks = []
    kind: Literal["personal", "service"] | None = Field(
        None, description="personal acts as the caller's account, service as the team; as the calling key if absent."
    )
    team_id: Id | None = Field(default=None, description="For the operator: another team.")
    account_id: Id | None = Field(default=None, description="For the operator: the account of a personal key.")
    family: Literal["msk"] | None = Field(default=None, description="msk: a secret that begins with msk_live_.")


class KeyUpdate(Body):
    name: Name | None = None
    scopes: ScopeList | None = None
    expires_in: Duration | None = None
    ip_allowlist: Networks | None = None


class KeyRoll(Body):
    grace_period: Duration = "24h"


RedirectPolicy = Literal["none", "apex_to_www", "www_to_apex"]


class DomainCreate(Body):
    hostname: str = Field(min_length=1, max_length=255, description="As www.example.com; xn--… for other letters.")
    redirect_to_primary: bool = Field(default=False, description="Answer with a redirect to the primary name.")
    redirect_policy: RedirectPolicy = "none"


class DomainUpdate(Body):
    redirect_to_primary: bool | None = None
    redirect_policy: RedirectPolicy | None = None


Url = Annotated[str, Field(min_length=1, max_length=2000, description="An https:// address.")]
EventNames = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=100)]],
    Field(min_length=1, max_length=100, description="Names of events, `prefix.*`, or `*`."),
]


class EndpointCreate(Body):
    url: Url
    events: EventNames
    description: str | None = Field(default=None, max_length=500)
    resource: Pin | None = Field(default=None, description="Only events of this; as the calling key is pinned.")


class EndpointUpdate(Body):
    url: Url | None = None
    events: EventNames | None = None
    description: str | None = Field(default=None, max_length=500)
    enabled: bool | None = None


class EndpointRotate(Body):
    grace_period: Duration = "24h"


class ForgeHookCreate(Body):
    provider: Literal["github", "gitlab", "gitea"] = Field(description="gitea: Forgejo and Gogs too.")


class TeamCreate(Body):
    name: Name
    slug: Slug | None = None
    owner_account_id: Id | None = None


class ProjectCreate(Body):
    name: Name
    slug: Slug | None = None
    team_id: Id | None = Field(default=None, description="The key's own team if left out.")


class MemberAdd(Body):
    """`account_id`, or `email` of an account; the operator may name a new one with `email` and `name`."""

    account_id: Id | None = None
    email: str | None = Field(default=None, min_length=3, max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")
    name: Name | None = None
    role: Role
    project_ids: list[Id] | None = Field(default=None, max_length=1000)


class MemberUpdate(Body):
    role: Role | None = None
    project_ids: list[Id] | None = Field(default=None, max_length=1000)


# answers


class Row(BaseModel):
    """Fields may be added within `/v1`: ignore what you do not know."""


class ErrorObject(Row):
    type: Literal[
        "invalid_request",
        "authentication",
        "permission",
        "not_found",
        "conflict",
        "rate_limit",
        "quota_exceeded",
        "api_error",
    ]
    code: str
    message: str
    param: str = Field(default="", description="Only where a field is to blame.")
    doc_url: str


class Problem(Row):
    error: ErrorObject
    request_id: str


class Actor(Row):
    type: str
    id: str
    label: str


class JobLinks(Row):
    self: str
    stream: str


class ResourceRow(Row):
    model_config = ConfigDict(extra="allow")
    type: ResourceType
    id: str


class JobRow(Row):
    id: str
    type: JobType
    status: JobStatus
    stage: str | None
    progress: int = Field(ge=0, le=100)
    created_at: str
    started_at: str | None
    finished_at: str | None
    cancel_requested: bool
    resource: ResourceRow
    actor: Json | None
    result: Json | None
    error: ErrorObject | None
    waits_for: Json | None = Field(description="What a held deployment waits for: `reasons`, each with its `message`.")
    links: JobLinks


class SiteRow(Row):
    id: str
    name: str
    slug: str
    runtime: str
    runtime_version: str | None
    profile: str
    php_version: str | None
    project_id: str
    team_id: str
    production_env_id: str | None
    repository: str | None
    git_url: str | None
    default_branch: str
    status: Literal["provisioning", "active", "suspended", "deleting"]
    created_at: str
    links: dict[str, str]


class EnvironmentRow(Row):
    id: str
    site_id: str
    kind: Literal["production", "staging", "preview"]
    slug: str
    branch: str
    status: Literal["provisioning", "active", "suspended", "deleting"]
    url: str | None
    preview_url: str | None
    hostnames: list[str]
    ephemeral: bool
    expires_at: str | None
    active_release_id: str | None
    instances: int | None
    bake_seconds: int
    pin: Json | None
    hosts: list[str]
    host_labels: list[str]
    away: Literal["fail", "skip"]
    created_at: str


class DriftRow(Row):
    id: str
    env_id: str
    host_id: str
    kind: Literal["instance", "current", "tree", "contents", "release", "host"]
    release_seq: int
    what: str
    job_id: str | None
    found_at: str
    mended_at: str | None
    created_at: str


class CacheRow(Row):
    hit: bool
    key: str | None
    build_id: str | None


class BuildRow(Row):
    id: str
    site_id: str
    env_id: str
    ref: str
    commit_sha: str | None
    clean: bool
    profile: str | None
    status: RunStatus
    stage: str | None
    cache: CacheRow
    uploaded_bytes: int | None
    artifact_id: str | None
    job_id: str
    builder: str | None = Field(description="Which machine has built it, or does; `local` is the one beside the API.")
    error: ErrorObject | None
    trigger: str
    actor: Json | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    duration_ms: int | None
    links: dict[str, str]


class PlanRow(Row):
    """As the signed provenance has it. `install`, `build` and `tidy` ran in `root`, in this order."""

    version: int
    profile: Literal["static", "dynamic"]
    framework: str | None
    source: str
    root: str
    toolchain: dict[str, str]
    install: str | None
    build: str | None
    tidy: str | None
    outputs: list[str]
    left_out: list[str]
    start: str | None
    env: dict[str, str]
    timeout: int | None
    watch: list[str]
    lock: str | None
    static: Json | None
    run: Json | None
    secrets: list[str] = []
    cache: list[str] = []


class SignatureRow(Row):
    bundle_media_type: str
    key_hint: str
    log_index: int | None
    signed_at: str


class RetentionRun(Body):
    dry_run: bool = Field(default=False, description="Change nothing: count.")


class RetentionRow(Row):
    """`totals`: artifacts, marked, kept, collected, pack_bytes, doomed, cache_bytes, and of sandboxes
    sandbox_packs, sandbox_bytes, snapshots. `last_run`: what it did, in numbers."""

    after_seconds: int
    wait_seconds: int
    totals: dict[str, int]
    last_run: Json | None


class ScrubRun(Body):
    whole: bool = Field(default=False, description="Read everything, not only what comes next.")


class IntegrityRow(Row):
    """`totals`: findings, open. `last_run`: what it read and did, in numbers."""

    totals: dict[str, int]
    last_run: Json | None


class FindingRow(Row):
    """A damaged object: `state` is open, mended or lost (nobody asked has it whole); `tried` says why not, by whom."""

    id: str
    site_id: str
    object: str
    name: str
    damage: str
    state: str
    mended_by: str | None
    tried: list[Json]
    log_index: int | None
    found_at: str
    mended_at: str | None


class ArtifactUpdate(Body):
    kept: bool = Field(description="Whether it is never collected.")


class ArtifactRow(Row):
    id: str
    site_id: str
    digest: str
    size_bytes: int
    files: int
    profile: str
    kind: str
    run: Json | None
    commit_sha: str
    ref: str
    build_id: str
    signature: SignatureRow
    created_at: str
    kept: bool
    collected_at: str | None
    links: dict[str, str]


class BillChange(Row):
    package: str = Field(description="The package URL without its version.")
    before: str | None
    after: str | None


class BillChangesRow(Row):
    artifact_id: str
    against: str
    changes: list[BillChange]


class FileRow(Row):
    path: str
    mode: str | None
    size: int | None
    sha256: str | None
    link: str | None


class DeploymentRow(Row):
    id: str
    site_id: str
    env_id: str
    artifact_id: str | None
    build_id: str | None
    ref: str | None
    release_id: str | None
    previous_release_id: str | None
    kind: Literal["deploy", "promote", "rollback", "stop", "restart", "scale", "suspend", "resume", "repair"]
    source_env_id: str | None
    source_release_id: str | None
    keep_config: bool
    config_version: int | None = Field(description="Given when its turn comes; 0 is the empty configuration.")
    hosts: list[str] | None = Field(description="Given when its turn comes.")
    hosts_away: list[str] = Field(description="Left out because they did not answer; they catch up by themselves.")
    status: RolloutStatus
    stage: str | None
    error: ErrorObject | None
    job_id: str
    actor: Json | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    links: dict[str, str]


class ConfigValueRow(Row):
    name: str
    version: int
    version_id: str


class ConfigReplacedRow(Row):
    name: str
    revoked: str
    version_id: str | None


class ConfigRow(Row):
    """A configuration by names and versions. `replaced`: what had been revoked, and what was taken instead."""

    version: int
    variables: list[ConfigValueRow]
    secrets: list[ConfigValueRow]
    replaced: list[ConfigReplacedRow]


class SecretRow(Row):
    """`live`: what runs has this version. `source`: the environment's own value, or the site's default."""

    key: str
    version: int
    version_id: str
    source: Literal["environment", "site"]
    current: bool
    live: bool
    actor: Json | None
    updated_at: str
    ended_at: str | None
    ended_by: Json | None
    revoked_at: str | None


class VariableRow(SecretRow):
    value: str | None


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


class ReleaseRow(Row):
    id: str
    env_id: str
    artifact_id: str
    deployment_id: str
    ref: str | None
    deployed_at: str
    actor: Json | None
    current: bool
    config: ConfigRow
    log_index: int | None


class LedgerEntryRow(Row):
    log_index: int
    log_id: str
    integrated_time: int
    canonicalized_body: str
    signed_entry_timestamp: str
    leaf_hash: str


class InclusionRow(Row):
    log_index: int
    tree_size: int
    leaf_hash: str
    root_hash: str
    hashes: list[str]
    checkpoint: str


class ConsistencyRow(Row):
    first: int
    second: int
    first_root: str
    second_root: str
    hashes: list[str]


class CommitStep(Row):
    repository: str | None
    ref: str
    commit_sha: str | None


class BuildStep(Row):
    build_id: str
    trigger: str
    actor: Json | None
    finished_at: str | None
    job_id: str


class ArtifactStep(Row):
    artifact_id: str
    digest: str
    files: int


class SignatureStep(Row):
    key_hint: str
    signed_at: str
    log_index: int | None
    integrated_time: str | None


class RolloutStep(Row):
    deployment_id: str
    kind: Literal["deploy", "promote", "rollback"]
    actor: Json | None
    source_env_id: str | None
    source_release_id: str | None
    job_id: str


class ReleaseStep(Row):
    release_id: str
    sequence: int
    deployed_at: str
    current: bool
    previous_release_id: str | None
    log_index: int | None
    integrated_time: str | None


class WhyRow(Row):
    """Each step rests on the one before it."""

    site_id: str
    env_id: str
    url: str | None
    commit: CommitStep
    build: BuildStep
    artifact: ArtifactStep
    signature: SignatureStep
    deployment: RolloutStep
    decision: Json | None = Field(description="What the policies said; null where there were none.")
    release: ReleaseStep
    links: dict[str, str]


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


class DeletedRow(Row):
    id: str
    deleted: bool


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


class CapabilitiesRow(Row):
    runtime: str
    runtime_version: str | None
    capabilities: dict[str, Json]


class RuntimeRow(Row):
    runtime: str
    versions: list[str]
    profiles: list[str]
    available: bool
    capabilities: dict[str, Json]


class Pagination(Row):
    next_cursor: str | None
    has_more: bool
