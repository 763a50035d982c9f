"""The broker's wire: what builders and hosts may ask of `api/internal`, over a unix socket or mTLS (DESIGN section 2).

Every request carries `Authorization: Bearer <role credential>`. A builder's request names its attempt: what an
earlier attempt sends is refused with 409 `attempt.stale`, so a worker that was frozen and comes back changes nothing.

| method, path | role | body → answer |
|---|---|---|
| POST /builds/{build_id}/begin | builder | Begin → BuildSpec |
| POST /builds/{build_id}/contents | builder | Contents → Missing |
| POST /builds/{build_id}/uploads | builder | UploadRequest → Upload |
| POST /builds/{build_id}/output | builder | Output → Accepted |
| POST /jobs/{job_id}/events | any | Events → Heard |
| GET  /rollouts/{rollout_id} | host | → RollSpec |
| POST /rollouts/{rollout_id}/commit | host | → Committed |
| GET  /rollouts/{rollout_id}/config?host_id= | host | → SealedConfig |
| PUT  /hosts/{host_id} | host | HostHello → Known |
| POST /hosts/{host_id}/drifts | host | Drifts → Noted |
| GET  /environments/{env_id}/hostnames | host | → Hostnames |
| GET  /health | any | → {} |

Errors: `{"error": {"code", "message", "param"?}}` with the status of `headway.errors.CODES`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Begin(Wire):
    attempt: int = Field(ge=1)
    worker: str


class BuildSpec(Wire):
    """What to build. `repository` is `https://…`, `ssh://…`, `file:///…`, or `hosted:<site_id>`.

    `allow_hosts` is for the build's command. The repository's own host is not among them: whoever names the
    repository would choose where strangers' code may talk to; fetching has a policy of its own.
    """

    build_id: str
    job_id: str
    site_id: str
    env_id: str
    attempt: int
    repository: str
    ref: str
    default_branch: str
    profile: str
    clean: bool
    allow_hosts: list[str]


class Contents(Wire):
    """`contents` are `(sha256 hex, size in bytes)`; at most 100,000."""

    attempt: int
    contents: list[tuple[str, int]]


class Missing(Wire):
    """The contents that no pack of this site holds. Packs that hold the others are leased to the build."""

    missing: list[str]


class UploadRequest(Wire):
    """One object to upload: `kind` pack or manifest, named by its sha256."""

    attempt: int
    kind: Literal["pack", "manifest"]
    sha256: str
    size: int = Field(ge=0)


class Upload(Wire):
    """A presigned PUT with the headers to send; None where the object is already there."""

    url: str | None
    headers: dict[str, str] = {}


class PackEntry(Wire):
    sha256: str
    offset: int
    size: int


class NewPack(Wire):
    sha256: str
    size: int
    entries: list[PackEntry]


class Output(Wire):
    """The end of a build: everything that the row keeps. The broker re-reads and re-hashes the manifest."""

    attempt: int
    commit_sha: str
    source_sha256: str
    profile: str
    kind: Literal["static", "dynamic"]
    plan: dict[str, Any]
    cache: dict[str, Any]
    manifest_sha256: str
    pack: NewPack | None
    uploaded_bytes: int


class Accepted(Wire):
    manifest_sha256: str


class Event(Wire):
    """`log`: one line; `stage`: a step began; `progress`: 0–100. `ts` is RFC 3339, UTC, milliseconds."""

    kind: Literal["log", "stage", "progress"]
    ts: str
    stage: str | None = None
    stream: Literal["stdout", "stderr", "system"] | None = None
    line: str | None = None
    progress: int | None = None


class Events(Wire):
    """A batch. `(source, first + i)` numbers each event: what was already appended is skipped."""

    source: str
    first: int = Field(ge=1)
    events: list[Event]


class Heard(Wire):
    """`cancel`: somebody asked for the job's end."""

    cancel: bool


class RollSpec(Wire):
    """What to place. Presigned addresses; `packs` maps a pack's sha256 to its address.

    `config_version` is 0 where there is no configuration to ask for; `instances` is 0 where the artifact says how many.
    """

    rollout_id: str
    job_id: str
    kind: str
    site_id: str
    env_id: str
    artifact_id: str
    digest: str
    manifest_url: str
    layout_url: str
    bundle_url: str
    packs: dict[str, str]
    apply_seq: int
    undo_seq: int
    hostnames: list[str]
    config_version: int = 0
    instances: int = 0


class SealedConfig(Wire):
    """A rollout's configuration, sealed to one host's key: base64 of what `adapters/config/sealed.py` opens."""

    rollout_id: str
    config_version: int
    sealed: str


class HostHello(Wire):
    """A host that starts: its X25519 public key as base64."""

    public_key: str = Field(max_length=100)
    labels: list[str] = Field(default=[], max_length=50)


class Known(Wire):
    host_id: str
    labels: list[str]


class DriftNote(Wire):
    """Something that a host found otherwise than it had left it. Times in Unix seconds; `mended_at` None: not yet."""

    id: str = Field(pattern=r"^drift_[0-9A-Z]{26}$")
    env_id: str
    seq: int = Field(ge=0)
    kind: Literal["instance", "current", "tree", "contents", "release"]
    what: str = Field(max_length=500)
    found_at: float
    mended_at: float | None = None


class Drifts(Wire):
    """Told again, a finding is the same one: it may have been mended meanwhile."""

    drifts: list[DriftNote] = Field(max_length=100)


class Noted(Wire):
    noted: int


class Committed(Wire):
    """The point of no return is passed: the host may switch. Refused as job.canceled where a cancel came first."""

    rollout_id: str


class Hostnames(Wire):
    env_id: str
    hostnames: list[str]
