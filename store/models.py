"""The tables. Core words only (DESIGN section 1); the dialects translate.

Times are UTC and aware (`utcnow`), ids are a prefix and a ULID. Columns ending in `_seq` are
numbers that only ever grow within their environment.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, UniqueConstraint, false, text
from sqlmodel import Field, SQLModel

Json = dict[str, Any]


def utcnow() -> datetime:
    """Now, in UTC: every time in the tables is aware, and comes back in UTC."""
    return datetime.now(UTC)


def json_column(*, nullable: bool = True) -> Any:
    return Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=nullable))


class Account(SQLModel, table=True):
    id: str = Field(primary_key=True)
    name: str
    email: str | None = Field(default=None, unique=True)
    operator: bool = False
    created_at: datetime = Field(default_factory=utcnow)


class Team(SQLModel, table=True):
    id: str = Field(primary_key=True)
    name: str
    slug: str = Field(unique=True)
    created_at: datetime = Field(default_factory=utcnow)


class Membership(SQLModel, table=True):
    """`role`: owner | admin | site_manager | observer | billing (contract section 3.5)."""

    team_id: str = Field(primary_key=True, foreign_key="team.id")
    account_id: str = Field(primary_key=True, foreign_key="account.id", index=True)
    role: str
    created_at: datetime = Field(default_factory=utcnow)


class Project(SQLModel, table=True):
    """`workspace_id` None is the team's default workspace (store/workspaces.py)."""

    __table_args__ = (UniqueConstraint("team_id", "slug"),)
    id: str = Field(primary_key=True)
    team_id: str = Field(foreign_key="team.id", index=True)
    name: str
    slug: str
    is_default: bool = False
    workspace_id: str | None = Field(default=None, index=True)
    external_project_id: str | None = Field(default=None, index=True)
    description: str | None = None
    labels: Json | None = json_column()
    created_at: datetime = Field(default_factory=utcnow)


class ProjectMembership(SQLModel, table=True):
    """Where there is any row for an account in a team, its role applies on these projects only."""

    __tablename__ = "project_membership"
    project_id: str = Field(primary_key=True, foreign_key="project.id")
    account_id: str = Field(primary_key=True, foreign_key="account.id", index=True)


class ApiKey(SQLModel, table=True):
    """A credential. `kind`: personal | service | operator. Only the SHA-256 of the secret is kept.

    A personal key acts as `account_id` and dies with it; a service token acts as `team_id`.
    `resource` is None or `{"type": "team|workspace|project|site|environment", "id": …}`; a token that was made for
    somebody outside says for whom, in `external_user_id`.
    """

    __tablename__ = "api_key"
    id: str = Field(primary_key=True)
    team_id: str = Field(foreign_key="team.id", index=True)
    account_id: str | None = Field(default=None, foreign_key="account.id", index=True)
    kind: str
    name: str
    prefix: str
    secret_sha256: str = Field(unique=True)
    previous_sha256: str | None = Field(default=None, index=True)
    previous_expires_at: datetime | None = None
    scopes: list[str] = Field(sa_column=Column(JSON, nullable=False))
    resource: Json | None = json_column()
    ip_allowlist: list[str] = Field(sa_column=Column(JSON, nullable=False))
    created_at: datetime = Field(default_factory=utcnow)
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None


class Site(SQLModel, table=True):
    """`status`: provisioning | active | suspended | deleting | gone. `slug` is unique per team among the living.

    `external_*` are the callers' own texts: shown, filtered by, never believed. `build_count` numbers the builds.
    `branch_routes` None are the defaults; with `routes_from_repository` headway.toml may replace them.
    """

    __table_args__ = (
        Index(
            "site_slug",
            "team_id",
            "slug",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )
    id: str = Field(primary_key=True)
    team_id: str = Field(foreign_key="team.id", index=True)
    project_id: str = Field(foreign_key="project.id", index=True)
    name: str
    slug: str
    runtime: str = "auto"
    profile: str = "auto"
    repository: str | None = None
    default_branch: str = "main"
    allow_hosts: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    status: str = "provisioning"
    production_env_id: str | None = None
    build_command: str | None = None
    run_command: str | None = None
    auto_deploy: bool = True
    branch_routes: list[Json] | None = json_column()
    routes_from_repository: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    labels: Json | None = json_column()
    external_workspace_id: str | None = Field(default=None, index=True)
    external_user_id: str | None = Field(default=None, index=True)
    external_project_id: str | None = Field(default=None, index=True)
    build_count: int = 0
    created_at: datetime = Field(default_factory=utcnow)
    updated_at: datetime | None = None
    deleted_at: datetime | None = None


class Environment(SQLModel, table=True):
    """`kind`: production | staging | preview. `status`: provisioning | active | suspended | deleting | gone.

    `accept_seq` numbers the requests in the order in which the API accepted them; `fence_seq` numbers what a host
    may apply (two per rollout: apply and undo). `instances` is what `scale` asked for (None: what the artifact says);
    `bake_seconds` is how long a new release is watched before it counts. `idle_hours` is what a push to an
    ephemeral one, or renewing it, lets it live. `pin` (`{reason, actor, at}`) holds what is new. `hosts` are those that
    serve it; with `host_labels` a rollout goes to every host that carries all of them. `away` says what a rollout does
    about a host that does not answer: `fail`, or `skip` it.
    """

    __table_args__ = (
        Index(
            "environment_slug",
            "site_id",
            "slug",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )
    id: str = Field(primary_key=True)
    site_id: str = Field(foreign_key="site.id", index=True)
    kind: str
    slug: str
    branch: str
    status: str = "provisioning"
    ephemeral: bool = False
    expires_at: datetime | None = None
    idle_hours: int | None = None
    hosts: list[str] = Field(default_factory=lambda: ["local"], sa_column=Column(JSON, nullable=False))
    host_labels: list[str] = Field(
        default_factory=list, sa_column=Column(JSON, nullable=False, server_default=text("'[]'"))
    )
    away: str = Field(default="fail", sa_column_kwargs={"server_default": "fail"})
    accept_seq: int = 0
    fence_seq: int = 0
    instances: int | None = None
    bake_seconds: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    pin: Json | None = json_column()
    active_release_id: str | None = None
    created_at: datetime = Field(default_factory=utcnow)
    deleted_at: datetime | None = None


class Hostname(SQLModel, table=True):
    """A globally unique host name that leads to one environment; one of them is the primary."""

    name: str = Field(primary_key=True)
    env_id: str = Field(foreign_key="environment.id", index=True)
    is_primary: bool = False
    created_at: datetime = Field(default_factory=utcnow)


class Job(SQLModel, table=True):
    """The public face of a workflow, and the truth about its outcome.

    `status`: queued | running | succeeded | failed | canceled, the last three final. `rev` grows with every change.
    `started_at` is set with the claim: only unclaimed `queued` rows may ever be started (invariant 2).
    `committed_at` is the point of no return: from then on a cancel answers 409. `waits_for` says what its rollout is
    held for.
    """

    __table_args__ = (
        Index("job_team", "team_id", "created_at", "id"),
        Index("job_created", "created_at", "id"),
        Index(
            "job_open",
            "status",
            "id",
            sqlite_where=text("finished_at IS NULL"),
            postgresql_where=text("finished_at IS NULL"),
        ),
    )
    id: str = Field(primary_key=True)
    team_id: str = Field(foreign_key="team.id")
    site_id: str | None = Field(default=None, index=True)
    env_id: str | None = Field(default=None, index=True)
    type: str
    resource_type: str
    resource_id: str
    resource: Json | None = json_column()
    input: Json | None = json_column()
    status: str = "queued"
    stage: str | None = None
    progress: int = 0
    result: Json | None = json_column()
    error: Json | None = json_column()
    waits_for: Json | None = json_column()
    actor: Json | None = json_column()
    rev: int = 1
    cancel_requested_at: datetime | None = None
    committed_at: datetime | None = None
    created_at: datetime = Field(default_factory=utcnow)
    started_at: datetime | None = None
    finished_at: datetime | None = None


class Build(SQLModel, table=True):
    """`status`: queued | running | succeeded | failed | canceled | superseded; `stage`: fetch detect build pack sign.

    `attempt` fences builders: what an earlier attempt writes is refused; `builder_id` had the last one.
    `manifest_sha256` is the artifact's digest. `number` counts the builds of a site. `source` is None for the site's
    repository, or `{"kind": "snapshot", "sha256", "sandbox_id"}`, whose sha256 `snapshot_sha256` repeats for looking
    up; `overrides` is the wire's `BuildOverrides`.
    """

    __table_args__ = (
        Index("build_env", "env_id", "created_at", "id"),
        Index("build_builder", "builder_id", "created_at", "id"),
        Index(
            "build_open",
            "site_id",
            "id",
            sqlite_where=text("finished_at IS NULL"),
            postgresql_where=text("finished_at IS NULL"),
        ),
        Index(
            "build_snapshot",
            "snapshot_sha256",
            sqlite_where=text("snapshot_sha256 IS NOT NULL"),
            postgresql_where=text("snapshot_sha256 IS NOT NULL"),
        ),
    )
    id: str = Field(primary_key=True)
    site_id: str = Field(foreign_key="site.id", index=True)
    env_id: str = Field(foreign_key="environment.id")
    job_id: str = Field(index=True)
    number: int | None = None
    ref: str
    clean: bool = False
    source: Json | None = json_column()
    snapshot_sha256: str | None = None
    overrides: Json | None = json_column()
    labels: Json | None = json_column()
    profile: str | None = None
    trigger: str = "api"
    status: str = "queued"
    stage: str | None = None
    attempt: int = 0
    builder_id: str | None = None
    commit_sha: str | None = None
    source_sha256: str | None = None
    plan: Json | None = json_column()
    cache: Json | None = json_column()
    manifest_sha256: str | None = None
    uploaded_bytes: int | None = Field(default=None, sa_type=BigInteger)
    artifact_id: str | None = Field(default=None, index=True)
    error: Json | None = json_column()
    actor: Json | None = json_column()
    created_at: datetime = Field(default_factory=utcnow)
    started_at: datetime | None = None
    finished_at: datetime | None = None


class Artifact(SQLModel, table=True):
    """One row per site and digest. `digest` is the hex sha256 of the canonical manifest. `kept`: never collected.

    `marked_at` is set where nothing needs it any more: after a while it is looked at again, and collected
    (store/collection.py).

    Object keys: `sites/{site_id}/artifacts/{digest}/manifest.json`, `…/layout.json`, `…/bundle.json`.
    """

    __table_args__ = (
        UniqueConstraint("site_id", "digest"),
        Index("artifact_site", "site_id", "created_at", "id"),
        Index(
            "artifact_unlogged",
            "created_at",
            "id",
            sqlite_where=text("log_index IS NULL"),
            postgresql_where=text("log_index IS NULL"),
        ),
        Index(
            "artifact_marked",
            "marked_at",
            sqlite_where=text("marked_at IS NOT NULL"),
            postgresql_where=text("marked_at IS NOT NULL"),
        ),
    )
    id: str = Field(primary_key=True)
    site_id: str = Field(foreign_key="site.id")
    digest: str
    kind: str
    profile: str
    size_bytes: int = Field(sa_type=BigInteger)
    files: int
    build_id: str
    commit_sha: str
    ref: str
    key_hint: str
    log_index: int | None = None
    signed_at: datetime
    created_at: datetime = Field(default_factory=utcnow)
    kept: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    marked_at: datetime | None = None
    collected_at: datetime | None = None


class Pack(SQLModel, table=True):
    """One uploaded object of concatenated contents: `sites/{site_id}/packs/{sha256}`.

    `loosened_at`: when it lost one of its artifacts last, and nobody has looked yet at what is left of it.
    """

    site_id: str = Field(primary_key=True)
    sha256: str = Field(primary_key=True)
    size: int = Field(sa_type=BigInteger)
    created_at: datetime = Field(default_factory=utcnow)
    loosened_at: datetime | None = None


class Content(SQLModel, table=True):
    """Where a content lies: `size` bytes at `offset` of a pack of the same site."""

    site_id: str = Field(primary_key=True)
    sha256: str = Field(primary_key=True)
    pack_sha256: str
    offset: int = Field(sa_type=BigInteger)
    size: int = Field(sa_type=BigInteger)


class ArtifactPack(SQLModel, table=True):
    """The packs that an artifact's layout names: collection may not take them."""

    __tablename__ = "artifact_pack"
    __table_args__ = (Index("artifact_pack_pack", "site_id", "pack_sha256"),)
    site_id: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    pack_sha256: str = Field(primary_key=True)


class PackLease(SQLModel, table=True):
    """A running build builds on this pack: collection may not take it before the lease ends."""

    __tablename__ = "pack_lease"
    __table_args__ = (Index("pack_lease_pack", "site_id", "pack_sha256"),)
    build_id: str = Field(primary_key=True)
    site_id: str = Field(primary_key=True)
    pack_sha256: str = Field(primary_key=True)
    expires_at: datetime


class Rollout(SQLModel, table=True):
    """A request to put one artifact on one environment. `kind`: deploy | promote | rollback, and the kinds that are
    about the artifact which runs there already: restart | scale | suspend | resume | repair; stop has no artifact.

    `status`: waiting (for its build) | held (by a policy) | queued | running | succeeded | failed | canceled |
    superseded.
    `accept_seq` is its place in the order of acceptance; `branch` is set where a newer rollout of the same branch
    supersedes it (build-then-deploy). `apply_seq` and `undo_seq` are given when it is claimed, and so is
    `config_version`, the configuration that it brings. `config_replaced` lists what was revoked in the one that a
    rollback goes back to: `{name, revoked, version_id}`, the last one the value taken instead, or None. `instances` is
    how many instances it has (None: what the artifact says), `bake` what was measured while it was watched. `hosts` are
    given with the claim, too; `hosts_away` are those of them that did not answer and were left out.
    """

    __table_args__ = (
        Index("rollout_env", "env_id", "created_at", "id"),
        Index(
            "rollout_open",
            "env_id",
            "accept_seq",
            sqlite_where=text("finished_at IS NULL"),
            postgresql_where=text("finished_at IS NULL"),
        ),
    )
    id: str = Field(primary_key=True)
    site_id: str = Field(foreign_key="site.id", index=True)
    env_id: str = Field(foreign_key="environment.id")
    job_id: str = Field(index=True)
    kind: str
    artifact_id: str | None = None
    build_id: str | None = None
    source_env_id: str | None = None
    source_release_id: str | None = None
    ref: str | None = None
    branch: str | None = None
    accept_seq: int
    apply_seq: int | None = None
    undo_seq: int | None = None
    keep_config: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    config_version: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    config_replaced: list[Json] | None = json_column()
    instances: int | None = None
    hosts: list[str] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    hosts_away: list[str] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    bake: Json | None = json_column()
    status: str = "queued"
    stage: str | None = None
    release_id: str | None = None
    previous_release_id: str | None = None
    error: Json | None = json_column()
    actor: Json | None = json_column()
    created_at: datetime = Field(default_factory=utcnow)
    started_at: datetime | None = None
    finished_at: datetime | None = None


class Release(SQLModel, table=True):
    """What ran on an environment, and when: appended, never rewritten but for `current` and `log_index`.

    `config_version` numbers the environment's configurations (store/models_configuration.py); 0 is the empty one.
    `log_index` is None until the signing worker has entered it into the ledger.
    """

    __table_args__ = (
        Index("release_env", "env_id", "deployed_at", "id"),
        Index(
            "release_unlogged",
            "deployed_at",
            "id",
            sqlite_where=text("log_index IS NULL"),
            postgresql_where=text("log_index IS NULL"),
        ),
        # Said as SQLite is asked: it takes an index for a condition only where one implies the other word by word.
        Index(
            "release_current", "env_id", unique=True, sqlite_where=text("current = 1"), postgresql_where=text("current")
        ),
    )
    id: str = Field(primary_key=True)
    site_id: str = Field(foreign_key="site.id", index=True)
    env_id: str = Field(foreign_key="environment.id")
    rollout_id: str = Field(unique=True)
    artifact_id: str
    seq: int
    ref: str | None = None
    config_version: int = 0
    actor: Json | None = json_column()
    current: bool = True
    log_index: int | None = Field(default=None, sa_type=BigInteger)
    deployed_at: datetime = Field(default_factory=utcnow)


class Idempotency(SQLModel, table=True):
    """Contract section 4: key and outcome for 24 hours. `body` never holds a one-time secret."""

    principal: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    fingerprint: str
    status_code: int
    body: Json | None = json_column()
    headers: Json | None = json_column()
    job_id: str | None = None
    created_at: datetime = Field(default_factory=utcnow, index=True)


class Mark(SQLModel, table=True):
    """Small facts about this installation (schema of the data, sweeps done)."""

    name: str = Field(primary_key=True)
    value: str
