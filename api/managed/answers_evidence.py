"""What answers hold of the proofs: ledger, records, reasons, bills, and what is kept and found damaged."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.managed.answers import Row

Json = dict[str, Any]


class RetentionRow(Row):
    """`totals`: artifacts, marked, kept, collected, pack_bytes, doomed, cache_bytes, and of sandboxes
    sandbox_packs, sandbox_bytes, snapshots. `last_run`: what it did, in numbers."""

    after_seconds: int
    wait_seconds: int
    totals: dict[str, int]
    last_run: Json | None


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


class BillChange(Row):
    package: str = Field(description="The package URL without its version.")
    before: str | None
    after: str | None


class BillChangesRow(Row):
    artifact_id: str
    against: str
    changes: list[BillChange]


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
