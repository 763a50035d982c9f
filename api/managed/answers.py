"""What answers hold, from a site to its releases."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.managed.schemas import JobStatus, JobType, ResourceType, RolloutStatus, RunStatus

Json = dict[str, Any]


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


class CacheHitRow(Row):
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
    cache: CacheHitRow
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


class DeletedRow(Row):
    id: str
    deleted: bool


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


class InputRow(BaseModel):
    id: str = Field(description="For `input_id` of a command.")
    env_id: str
    received: int = Field(description="Bytes that are here: go on from there.")
    whole: bool = Field(description="Whether its end is here, so that a command may have it.")
