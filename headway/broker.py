"""The broker's wire: what builders and hosts may ask of `api/internal`, over a unix socket or by TLS.

Every request carries `Authorization: Bearer <credential>`: a role's, or a host's or a builder's own. A host speaks for
itself alone, and reaches the rollouts and environments that it has a part in. A builder's process shows in
`Headway-Holder` what it alone knows: what it begins is its own, and nobody else's, until it lets go of it or is silent
(409 `attempt.held`). Its request names its attempt: what an earlier attempt sends, or another process, is refused with
409 `attempt.stale`, so a worker that was frozen and comes back changes nothing.

| method, path | role | body → answer |
|---|---|---|
| GET  /builder | builder | → KnownBuilder |
| DELETE /leases/{id} | builder | → {} |
| POST /builds/{build_id}/begin | builder | Begin → BuildSpec |
| POST /builds/{build_id}/fetched | builder | Fetched → Wire |
| POST /builds/{build_id}/repository | builder | WantedRepository → a git bundle of the site's own repository |
| POST /builds/{build_id}/earlier | builder | Inputs → Earlier |
| POST /builds/{build_id}/secrets | builder | WantedSecrets → BuildSecrets |
| POST /builds/{build_id}/packs | builder | WantedPacks → Addresses |
| POST /builds/{build_id}/cache | builder | WantedCache → StoredCache |
| POST /builds/{build_id}/cached | builder | KeptCache → {} |
| POST /builds/{build_id}/contents | builder | Contents → Missing |
| POST /builds/{build_id}/uploads | builder | UploadRequest → Upload |
| POST /builds/{build_id}/output | builder | Output → Accepted |
| POST /jobs/{job_id}/events | any | Events → Heard |
| POST /execs/{job_id}/begin | builder | Begin → ExecSpec |
| POST /execs/{job_id}/packs | builder | WantedPacks → Addresses |
| POST /execs/{job_id}/uploads | builder | UploadRequest → Upload |
| POST /execs/{job_id}/output | builder | ExecOutput → Heard |
| POST /looks/{site_id}/begin | builder | BeginLook → LookSpec |
| POST /looks/{site_id}/seen | builder | Seen → Taken |
| GET  /rollouts/{rollout_id} | host | → RollSpec |
| POST /rollouts/{rollout_id}/commit | host | → Committed |
| GET  /rollouts/{rollout_id}/config | host | → SealedConfig |
| POST /commands/{job_id}/begin | host | → CommandSpec |
| PUT  /hosts/{host_id} | host | HostHello → Known |
| POST /hosts/{host_id}/drifts | host | Drifts → Noted |
| POST /hosts/{host_id}/serving | host | Serving → Leftovers |
| POST /findings/{finding_id} | host | Offer → MendSpec |
| GET  /environments/{env_id}/hostnames | host | → Hostnames |
| POST /environments/{env_id}/logs | host | LogBatch → LogHeard |
| POST /environments/{env_id}/requests | host | RequestBatch → RequestsHeard |
| GET  /health | any | → {} |

A long body comes with `Content-Encoding: zstd`.
Errors: `{"error": {"code", "message", "param"?}}` with the status of `headway.errors.CODES`.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

# What a builder's process alone knows.
HOLDER: Final = "Headway-Holder"
# What every broker is called by TLS, wherever it is: its own authority vouches for nothing else.
TLS_NAME: Final = "broker.headway.internal"
# To sign an address takes half a millisecond: what asks for more of them at once waits too long.
MAX_PACKS: Final = 500


class Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KnownBuilder(Wire):
    builder_id: str


class Begin(Wire):
    attempt: int = Field(ge=1)
    worker: str


class BuildOverrides(Wire):
    """What a request says over detection; None: detection decides. `output` is a folder relative to the tree's root."""

    kind: Literal["auto", "static", "dynamic"] = "auto"
    build_command: str | None = None
    output: str | None = None
    entrypoint: str | None = None
    run_command: str | None = None
    port: int | None = None
    health_check_path: str | None = None


class SnapshotSource(Wire):
    """A frozen tree to build instead of a repository. The packs that it names are asked for, some at a time."""

    sha256: str
    url: str


class WantedPacks(Wire):
    """Packs that a snapshot names, by sha256."""

    attempt: int
    packs: list[str] = Field(max_length=MAX_PACKS)


class Addresses(Wire):
    """A presigned GET for each of them."""

    packs: dict[str, str]


class WantedRepository(Wire):
    """The site's own repository, for a builder that does not have it beside itself."""

    attempt: int


class RepositoryAccess(Wire):
    """What a private repository is read with, for the run that fetches: never logged, kept, or shown to a build."""

    username: str = ""
    token: str = ""
    keys: list[str] = []

    def __repr__(self) -> str:
        return "RepositoryAccess()"

    __str__ = __repr__


class BuildSpec(Wire):
    """What to build. `repository` is `https://…`, `ssh://…`, `file:///…`, or `hosted:<site_id>`.

    `allow_hosts` is for the build's command. The repository's own host is not among them: whoever names the
    repository would choose where strangers' code may talk to; fetching has a policy of its own. Where a build does not
    leave its cache, it begins with its environment's all the same.
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
    snapshot: SnapshotSource | None = None
    overrides: BuildOverrides | None = None
    access: RepositoryAccess | None = None
    leaves_cache: bool = True


class BeginLook(Wire):
    attempt: int = Field(ge=1)


class LookSpec(Wire):
    """A remote whose branches are to be looked at, and nothing else of it."""

    site_id: str
    repository: str
    access: RepositoryAccess | None = None


class Seen(Wire):
    """The commit of each branch, or why nothing was seen: `code` is one of `headway.errors.CODES`."""

    attempt: int = Field(ge=1)
    branches: dict[str, str] = Field(default_factory=dict, max_length=10_000)
    code: str | None = Field(default=None, max_length=100)
    message: str = Field(default="", max_length=1000)


class Taken(Wire):
    """How many branches were news."""

    news: int


class Fetched(Wire):
    """What a name has led to: told as soon as it is known, so that whoever asks for the same commit joins."""

    attempt: int
    commit_sha: str = Field(pattern="^([0-9a-f]{40}|[0-9a-f]{64})$")


class Inputs(Wire):
    """All that a build takes in, as one sha256: source or watched files, plan with toolchain and variables.

    `commit_sha`: what is built, where that was not told before.
    """

    attempt: int
    inputs: str = Field(pattern="^[0-9a-f]{64}$")
    commit_sha: str | None = None


class Earlier(Wire):
    """The newest build of the same environment that took in the same, and its artifact; None where there is none."""

    build_id: str | None = None
    manifest_sha256: str | None = None
    kind: Literal["static", "dynamic"] = "static"


class WantedSecrets(Wire):
    """The names that headway.toml lists: nothing else of the environment's configuration is given to a build."""

    attempt: int
    names: list[str] = Field(max_length=200)


class BuildSecrets(Wire):
    """`values` and the ids of their `versions`, by name. Values are never logged, kept or made part of a plan."""

    values: dict[str, str]
    versions: dict[str, str]

    def __repr__(self) -> str:
        return f"BuildSecrets({sorted(self.values)})"


class Contents(Wire):
    """`contents` are `(sha256 hex, size in bytes)`; at most 100,000."""

    attempt: int
    contents: list[tuple[str, int]]


class Missing(Wire):
    """The contents that no pack of this site holds. Packs that hold the others are leased to the build."""

    missing: list[str]


class WantedCache(Wire):
    """`key` names the lock file's content."""

    attempt: int
    key: str = Field(pattern="^[0-9a-f]{32}$")


class StoredCache(Wire):
    """What to begin with: the environment's own, or production's; None where neither left anything.

    `most` is how large an archive may be that is kept; 0: none is.
    """

    sha256: str | None = None
    size: int = 0
    url: str = ""
    own: bool = False
    most: int = 0


class KeptCache(WantedCache):
    """An archive that has been uploaded as the environment's own for this key."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class UploadRequest(Wire):
    """One object to upload, named by its sha256.

    `artifact`: of a bill of materials, the manifest's; `cache`: of a cache, its key. `body` is a manifest itself: then
    the broker puts it there.
    """

    attempt: int
    kind: Literal["pack", "manifest", "sbom", "cache"]
    sha256: str
    size: int = Field(ge=0)
    artifact: str | None = None
    cache: str | None = Field(default=None, pattern="^[0-9a-f]{32}$")
    body: str | None = None


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


class LastWords(Wire):
    """A batch for a job, sent along with something else."""

    job_id: str
    events: Events


class Output(Wire):
    """The end of a build: everything that the row keeps. The broker re-hashes the manifest.

    `manifest` is its text, where it names contents that are new and so is new itself: then the broker puts it into the
    object store. One that was uploaded before is read there. `earlier` says that this is what `Earlier` told of.
    `last`: what was said last, so that it needs no message of its own.
    """

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
    manifest: str | None = None
    sbom: str | None = None
    earlier: bool = False
    last: LastWords | None = None


class Accepted(Wire):
    """`artifact_id`: the artifact of an earlier build that is this one's too; None where there is one to sign.

    `job_id` is set where last words came with the output.
    """

    manifest_sha256: str
    artifact_id: str | None = None
    job_id: str = ""


class Heard(Wire):
    """`cancel`: somebody asked for the job's end."""

    cancel: bool


class ExecSpec(Wire):
    """A command in a copy of a sandbox's tree; `cwd` is relative to it, `timeout` in seconds."""

    job_id: str
    sandbox_id: str
    attempt: int
    command: str
    cwd: str
    env: dict[str, str]
    timeout: int
    snapshot: SnapshotSource


class ExecFile(Wire):
    """A file that the command made or changed: `size` bytes at `offset` of the output's pack."""

    path: str
    mode: Literal["644", "755"]
    size: int = Field(ge=0)
    sha256: str
    offset: int = Field(ge=0)


class ExecOutput(Wire):
    """What a command has done to the tree, and what it said: `stdout` and `stderr` are cut at a limit."""

    attempt: int
    exit_code: int
    duration_ms: int
    limit: str | None
    stdout: str
    stderr: str
    pack: str | None
    pack_size: int = 0
    files: list[ExecFile] = []
    links: list[tuple[str, str]] = []
    removed: list[str] = []


class CommandSpec(Wire):
    """A one-off command with the placed release `seq`; `timeout` in seconds.

    `given`: how many bytes it finds on its standard input; None: nothing is to be fetched.
    """

    job_id: str
    env_id: str
    seq: int
    command: str
    timeout: int
    given: int | None = None


class WantedInput(Wire):
    """From which byte of a command's input on. Who asks for its end has all of it: it is forgotten."""

    start: int = Field(ge=0)


class InputPart(Wire):
    """Base64, empty at the end."""

    data: str


class Parcel(Wire):
    """An artifact's parts by presigned addresses; `packs` maps a pack's sha256 to its address.

    `bundle_url` is empty while it is not signed; `keyring` is signed, or empty. `rollout_id`: the one that it is for,
    where that is known.
    """

    site_id: str
    digest: str
    manifest_url: str
    layout_url: str
    packs: dict[str, str]
    bundle_url: str = ""
    keyring: str = ""
    rollout_id: str = ""


class Coming(Wire):
    """What a host will be asked to place soon, so that it lies there by then. A help: none of it has to be had."""

    parcels: list[Parcel] = []


class RollSpec(Parcel):
    """What to place.

    `config_version` is 0 where there is no configuration to ask for; `instances` is 0 where the artifact says how many.
    `policies` are signed records of what the environment is held to, `proof` that of the
    decision, or of the release that runs there; `awaited`: the signing worker has not entered them yet, ask again.
    `committed`: the point of no return is passed, as the host was ready.
    """

    job_id: str
    kind: str
    env_id: str
    artifact_id: str
    apply_seq: int
    undo_seq: int
    hostnames: list[str]
    config_version: int = 0
    instances: int = 0
    lock: str = ""
    policies: list[str] = []
    proof: str = ""
    awaited: bool = False
    committed: bool = False


class Ready(Wire):
    """What a host has examined ahead, by the keyring of that `sha256`, and needs nothing more for than to place it."""

    digest: str
    keyring_sha256: str


class SealedConfig(Wire):
    """A rollout's configuration, sealed to one host's key: base64 of what `adapters/config/sealed.py` opens."""

    rollout_id: str
    config_version: int
    sealed: str


class Serving(Wire):
    """What a host serves: the live number of each environment that lies there, 0 for nothing. All of it at once."""

    live: dict[str, int] = Field(max_length=100_000)


class Leftovers(Wire):
    """Environments that have no business on a host any more."""

    environments: list[str]


class Offer(Wire):
    """A host has a whole copy of a manifest, of that size in bytes; of a pack it is not asked (0)."""

    size: int = Field(default=0, ge=0, le=1 << 30)


class MendSpec(Wire):
    """A damaged object, and how to put it right: `put_url` takes exactly the bytes of that sha256, and only in the
    place of the damaged ones (`put_headers` are to be sent as they are). `get_url` reads what is there; None: nothing.

    `pieces` are `(sha256, offset, size)` of a pack, by offset; a manifest has none.
    """

    finding_id: str
    object: Literal["pack", "manifest"]
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0)
    pieces: list[tuple[str, int, int]] = []
    get_url: str | None
    put_url: str
    put_headers: dict[str, str]


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
    job_id: str = ""


class Hostnames(Wire):
    """`redirects`: of some of the names, the origin (`https://www.example.com`) that answers in their place."""

    env_id: str
    hostnames: list[str]
    redirects: dict[str, str] = Field(default_factory=dict)
    lock: str = Field(default="", description="Of its visitors' password, for the web server; empty: there is none.")


class InstanceLines(Wire):
    """Lines of one instance, `(time, stream, text)`, numbered from `first` on. None: a question what was heard last.

    `numbers`, where there are any, are the lines' own: they grow, and a gap between two says nothing.
    """

    seq: int = Field(ge=0)
    process: str = Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")
    index: int = Field(ge=0)
    first: int = Field(default=1, ge=1)
    numbers: list[int] = Field(default=[], max_length=5_000)
    lines: list[tuple[str, Literal["stdout", "stderr", "system"], str]] = Field(default=[], max_length=5_000)


class LogBatch(Wire):
    """What instances of one environment on one host have printed. What was heard already is skipped."""

    host_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    instances: list[InstanceLines] = Field(max_length=500)


class LastHeard(Wire):
    """The number and time of an instance's last line that is kept; 0 where none is."""

    number: int
    ts: str


class LogHeard(Wire):
    """In the order of the batch."""

    heard: list[LastHeard]


class RequestMinute(Wire):
    """What was asked in one minute (Unix time / 60): `classes` counts by the status's first digit, 0 for none;
    `durations` by bucket of `headway.buckets`; `size` in bytes answered."""

    minute: int = Field(ge=0)
    classes: list[int] = Field(min_length=6, max_length=6)
    size: int = Field(ge=0)
    durations: dict[int, int] = Field(max_length=200)


class RequestLine(Wire):
    """One request, without its query."""

    ts: str = Field(max_length=40)
    hostname: str = Field(max_length=253)
    method: str = Field(max_length=32)
    path: str = Field(max_length=512)
    status: int
    duration_ms: float
    size: int


class RequestBatch(Wire):
    """What a host's web server was asked of one environment, up to a place in its log, places being ordered.

    `minutes` count all of it, `lines` are the last ones, `unlisted` is how many came before those. With nothing in it:
    a question what was heard last.
    """

    host_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    upto: tuple[float, int]
    minutes: list[RequestMinute] = Field(default=[], max_length=5_000)
    lines: list[RequestLine] = Field(default=[], max_length=1_000)
    unlisted: int = Field(default=0, ge=0)


class RequestsHeard(Wire):
    """The place up to which everything is counted; (0, 0) where nothing is."""

    upto: tuple[float, int]
