"""What requests may hold: the OpenAPI document is made of these and of the modules of answers."""

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


class RetentionRun(Body):
    dry_run: bool = Field(default=False, description="Change nothing: count.")


class ScrubRun(Body):
    whole: bool = Field(default=False, description="Read everything, not only what comes next.")


class ArtifactUpdate(Body):
    kept: bool = Field(description="Whether it is never collected.")
