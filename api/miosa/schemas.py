"""What requests of this dialect may hold. Unknown fields are ignored: every client of it sends some that another server
reads."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Json = dict[str, Any]
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"\S")]
Text = Annotated[str, Field(min_length=1, max_length=255, pattern=r"\S")]
Command = Annotated[str, Field(max_length=8_000)]
Port = Annotated[int, Field(ge=1, le=65_535)]
# As an app's settings hold it (adapters/artifact/run_fields.py).
HealthPath = Annotated[str, Field(max_length=1_000, pattern=r"^/[!-\"$-~]*$")]
Path = Annotated[str, Field(min_length=1, max_length=1_100)]
Metadata = Annotated[Json, Field(max_length=200)]
Scopes = Annotated[list[Annotated[str, Field(max_length=60)]], Field(min_length=1, max_length=100)]
Variables = Annotated[dict[str, str], Field(max_length=200)]
# Of processes that are started at once: what no process can be given is refused here.
ProcessEnv = Annotated[
    dict[
        Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")],
        Annotated[str, Field(max_length=65_536)],
    ],
    Field(max_length=200),
]


class Body(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Nothing(Body):
    """An empty body, or none."""


class External(Body):
    """Texts of the caller's own: kept, shown, filtered by; never a right."""

    external_workspace_id: Text | None = None
    external_user_id: Text | None = None
    external_project_id: Text | None = None


class Owned(External):
    """Workspace and project, found or made."""

    workspace_id: Text | None = None
    workspace_slug: Text | None = None
    workspace_name: Name | None = None
    project_id: Text | None = None
    project_slug: Text | None = None
    project_name: Name | None = None


class DeploymentCreate(Owned):
    name: Name
    slug: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")] | None = None
    source_type: Literal["repo", "git", "sandbox", "upload", "forge"] | None = None
    repo_url: Annotated[str, Field(min_length=1, max_length=1_000)] | None = None
    branch: Annotated[str, Field(min_length=1, max_length=250)] | None = None
    build_command: Command | None = None
    run_command: Command | None = None
    auto_deploy: bool = True
    metadata: Metadata | None = None
    database: Any = Field(default=None, description="Out of scope here: refused.")
    env: Variables | None = Field(default=None, description="Variables of production.")


class DeploymentUpdate(External):
    name: Name | None = None
    slug: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")] | None = None
    branch: Annotated[str, Field(min_length=1, max_length=250)] | None = None
    build_command: Command | None = None
    run_command: Command | None = None
    auto_deploy: bool | None = None
    metadata: Metadata | None = None


class Move(Body):
    target_workspace_id: Text
    target_project_id: Text | None = None


class PublishFields(Owned):
    kind: Literal["auto", "static", "dynamic"] = "auto"
    environment: Annotated[str, Field(min_length=1, max_length=63)] = "production"
    output_path: Path | None = Field(default=None, description="A folder of the sandbox; /workspace if left out.")
    entrypoint: Path | None = Field(default=None, description="The page at /, relative to what is published.")
    build_command: Command | None = None
    run_command: Command | None = None
    port: Port | None = None
    health_check_path: HealthPath | None = None
    promote: bool = True
    metadata: Metadata | None = None
    database: Any = Field(default=None, description="Out of scope here: refused.")


class PublishSource(Body):
    sandbox_id: Text


class Publish(PublishFields):
    """`source_sandbox_id`, or `source.sandbox_id`, which the vendor's MCP server sends."""

    source_sandbox_id: Text | None = None
    source: PublishSource | None = None


class Bridge(PublishFields):
    """`POST /sandboxes/:id/deploy`: a new version of `deployment_id`, or of a new deployment called `name`."""

    deployment_id: Text | None = None
    name: Name | None = None
    slug: Text | None = None
    path: Path | None = Field(default=None, description="As `output_path`.")
    start_command: Command | None = Field(default=None, description="As `run_command`.")
    domain: Any = Field(default=None, description="Attach domains to the deployment: refused here.")
    custom_domain: Any = Field(default=None, description="As `domain`.")


class VariablesSet(Body):
    """`env` holds many, `key` and `value` one. `is_secret` is about new names: true if left out."""

    env: Variables | None = None
    key: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    value: Annotated[str, Field(max_length=65_536)] | None = None
    is_secret: bool | None = None
    environment: Annotated[str, Field(min_length=1, max_length=63)] = "production"


class Promote(Body):
    environment: Annotated[str, Field(min_length=1, max_length=63)] = "production"


class Rollback(Body):
    version_id: Text | None = None
    release_id: Text | None = None
    environment: Annotated[str, Field(min_length=1, max_length=63)] = "production"


class SandboxCreate(Owned):
    name: Name | None = None
    template_id: Text | None = None
    template: Text | None = None
    image: Text | None = None
    metadata: Metadata | None = None
    tags: Annotated[list[Text], Field(max_length=50)] | None = None
    idle_timeout_sec: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    env: ProcessEnv | None = Field(default=None, description="Variables of every command, which may send its own.")


class SandboxUpdate(Body):
    name: Name | None = None
    metadata: Metadata | None = None
    tags: Annotated[list[Text], Field(max_length=50)] | None = None
    idle_timeout_sec: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None


class WorkspaceCreate(Body):
    name: Name
    slug: Text | None = None
    description: Annotated[str, Field(max_length=2_000)] | None = None
    metadata: Metadata | None = None
    external_workspace_id: Text | None = None
    allow_duplicate_name: bool = False


class WorkspaceUpdate(Body):
    name: Name | None = None
    description: Annotated[str, Field(max_length=2_000)] | None = None
    metadata: Metadata | None = None


class ProjectCreate(Body):
    name: Name
    slug: Text | None = None
    description: Annotated[str, Field(max_length=2_000)] | None = None
    metadata: Metadata | None = None
    workspace_id: Text | None = None
    workspace_slug: Text | None = None
    workspace_name: Name | None = None
    external_workspace_id: Text | None = None
    external_project_id: Text | None = None


class ProjectUpdate(WorkspaceUpdate):
    pass


class KeyCreate(Body):
    name: Name
    scopes: Scopes | None = None
    expires_at: datetime | None = Field(default=None, description="90 days from now if left out; at most a year.")


Url = Annotated[str, Field(min_length=1, max_length=2_000, description="An https:// address.")]
EventNames = Annotated[list[Annotated[str, Field(min_length=1, max_length=100)]], Field(max_length=100)]
SentHeaders = Annotated[dict[str, str], Field(max_length=10, description="Sent with each delivery; never shown again.")]
Flat = dict[str, str | int | float | bool | None]


class WebhookCreate(Body):
    """No `events`: all of them."""

    url: Url
    events: EventNames = []
    name: Name | None = None
    headers: SentHeaders = {}
    retry_count: int = Field(default=3, ge=0, le=10)
    metadata: Json | None = None


class WebhookUpdate(Body):
    url: Url | None = None
    events: EventNames | None = None
    name: Name | None = None
    headers: SentHeaders | None = None
    retry_count: int | None = Field(default=None, ge=0, le=10)
    metadata: Json | None = None
    enabled: bool | None = None
    active: bool | None = Field(default=None, description="As `enabled`.")


class DomainAdd(External):
    """One of `domain` and `fqdn`. `environment`: production if left out."""

    domain: Text | None = None
    fqdn: Text | None = None
    hostname: Text | None = None
    redirect_policy: Literal["none", "apex_to_www", "www_to_apex"] | None = None
    environment: Text | None = None


class DomainAssign(DomainAdd):
    deployment_id: Text


class DomainChange(Body):
    redirect_policy: Literal["none", "apex_to_www", "www_to_apex"] | None = None


class Replay(Body):
    replay_id: Annotated[str, Field(min_length=1, max_length=255)] | None = Field(
        default=None, description="The same one is not taken twice: 409."
    )


class SubscriptionCreate(Body):
    consumer_kind: Literal["workflow", "webhook", "agent", "notification"]
    consumer_id: Text
    event_type: Annotated[str, Field(min_length=1, max_length=100)]
    filter: Flat | None = None
    workspace_id: Text | None = None
    project_id: Text | None = None


class SubscriptionUpdate(Body):
    active: bool | None = None
    filter: Flat | None = None


class KeyUpdate(Body):
    name: Name | None = None
    scopes: Scopes | None = None
    status: Literal["active", "revoked"] | None = None


class ScopedKeyCreate(Body):
    """A key for somebody outside: `external_user_id` is a label, the scopes are what it may."""

    external_user_id: Text
    scopes: Scopes
    expires_at: datetime | None = Field(default=None, description="90 days from now if left out; at most a year.")


class ScopedTokenCreate(Body):
    """Short-lived, and good within one workspace only."""

    user_id: Text
    workspace_id: Text
    expires_in_seconds: Annotated[int, Field(ge=1, le=86_400)] = 3_600
    scopes: Scopes | None = Field(
        default=None, description="The caller's own for deployments and sandboxes, if left out."
    )


class FileWrite(Body):
    """`content` is text as it is; `content_base64` is decoded."""

    path: Path
    content: str | None = None
    content_base64: str | None = None
    mode: Annotated[str, Field(pattern=r"^0?[0-7]{3}$")] | int | None = None


class FilesWrite(Body):
    files: Annotated[list[FileWrite], Field(min_length=1, max_length=20_000)]


class Exec(Body):
    command: Annotated[str, Field(min_length=1, max_length=32_000)]
    cwd: Path | None = Field(default=None, description="A folder of the sandbox; /workspace if left out.")
    env: ProcessEnv | None = None
    timeout: Annotated[int, Field(ge=1, le=600, description="Seconds.")] = 60


class PathOf(Body):
    path: Path
