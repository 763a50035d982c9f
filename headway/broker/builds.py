"""What a builder asks for a build, from its begin to its output."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from headway.broker.events import LastWords
from headway.broker.wire import MAX_PACKS, Wire


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
    keys: list[str] = Field(default=[])

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
    headers: dict[str, str] = Field(default={})


class PackEntry(Wire):
    sha256: str
    offset: int
    size: int


class NewPack(Wire):
    sha256: str
    size: int
    entries: list[PackEntry]


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
