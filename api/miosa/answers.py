"""What answers of this dialect hold."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Json = dict[str, Any]


class Row(BaseModel):
    """Fields may be added: ignore what you do not know."""

    model_config = ConfigDict(extra="allow")


class ErrorObject(Row):
    code: str
    message: str
    request_id: str
    details: Json
    retryable: bool


class Problem(Row):
    error: ErrorObject


class PageBlock(Row):
    page: int
    page_size: int
    total: int


DeploymentState = Literal["pending", "building", "running", "stopped", "failed"]
VersionState = Literal["created", "building", "ready", "failed", "archived"]


class DeploymentRow(Row):
    id: str
    tenant_id: str
    workspace_id: str
    project_id: str
    name: str
    slug: str
    state: DeploymentState
    source_type: Literal["repo", "git", "sandbox", "upload", "forge"]
    active_version_id: str | None
    active_release_id: str | None
    current_build_id: str | None
    auto_deploy: bool
    metadata: Json
    public_url: str | None
    created_at: str
    updated_at: str


class VersionRow(Row):
    id: str
    deployment_id: str
    tenant_id: str
    version_number: int
    kind: Literal["static", "dynamic"]
    state: VersionState
    artifact_uri: str | None
    artifact_sha256: str | None
    source_sha256: str | None
    artifact_manifest: Json
    metadata: Json
    created_at: str


class ReleaseRow(Row):
    id: str
    deployment_id: str
    deployment_version_id: str
    tenant_id: str
    kind: str
    state: str
    artifact_manifest: Json
    metadata: Json


class ServiceRow(Row):
    id: str
    deployment_id: str
    tenant_id: str
    type: str
    state: str


class PublishResultRow(Row):
    deployment: DeploymentRow
    version: VersionRow
    release: ReleaseRow | None
    services: list[ServiceRow]
    promoted: bool


class BuildRow(Row):
    id: str
    deployment_id: str
    state: Literal["queued", "building", "succeeded", "failed", "cancelled"]
    created_at: str


class SandboxRow(Row):
    id: str
    tenant_id: str
    state: Literal["running", "destroyed"]
    ready: bool
    name: str | None
    metadata: Json
    created_at: str


class WorkspaceRow(Row):
    id: str
    tenant_id: str
    name: str
    slug: str
    metadata: Json


class ProjectRow(Row):
    id: str
    tenant_id: str
    workspace_id: str
    name: str
    slug: str
    metadata: Json


class KeyRow(Row):
    id: str
    name: str
    prefix: str
    scopes: list[str]


class DomainRow(Row):
    id: str
    tenant_id: str
    deployment_id: str
    domain: str
    fqdn: str
    status: Literal["pending", "verified", "active", "failed", "removed"]
    redirect_policy: Literal["none", "apex_to_www", "www_to_apex"]
    verification_target: str
    dns_records: list[Json]
    instructions: str
    created_at: str


class WebhookRow(Row):
    """`secret` is there once, in the answer that made it."""

    id: str
    tenant_id: str
    url: str
    events: list[str]
    enabled: bool
    retry_count: int
    secret_preview: str
    created_at: str


class DeliveryRow(Row):
    id: str
    webhook_id: str
    event_id: str
    event_type: str
    state: Literal["pending", "delivered", "failed", "canceled"]
    attempts: int
    created_at: str


class SubscriptionRow(Row):
    id: str
    tenant_id: str
    consumer_kind: Literal["webhook"]
    consumer_id: str
    event_type: str
    active: bool
    created_at: str


class VariableRow(Row):
    """`preview`, which is `value` too, never is the whole value."""

    name: str
    key: str
    preview: str
    is_secret: bool
    environment: str


class InstanceRow(Row):
    id: str
    tenant_id: str
    deployment_id: str
    state: Literal["provisioning", "starting", "healthy", "unhealthy", "error", "stopped", "destroyed"]


class OperationRow(Row):
    id: str
    type: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    progress: int


class FileRow(Row):
    path: str
    name: str
    type: Literal["file", "directory"]
    size: int


class AnyRow(Row):
    """A dictionary whose fields depend on what it is about."""
