"""What the broker asks of the rows: attempts of builds, contents and packs, what a host has to place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from sqlalchemy import bindparam
from sqlalchemy import insert as core_insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from store.artifacts import object_key, pack_key
from store.collection import lock_for_use, require_not_doomed
from store.fleet import hosts_for
from store.models import (
    Artifact,
    ArtifactPack,
    Build,
    Content,
    Environment,
    Hostname,
    Job,
    Pack,
    PackLease,
    Rollout,
    Site,
    utcnow,
)

T = TypeVar("T")
BATCH: Final = 500
# Builds of an environment that are looked at for one that took in the same.
RECENT: Final = 50
_PACKS: Final = select(ArtifactPack.pack_sha256).where(
    ArtifactPack.site_id == bindparam("site_id"), ArtifactPack.digest == bindparam("digest")
)
_HELD: Final = select(Content.sha256, Content.pack_sha256, Content.offset, Content.size).where(
    Content.site_id == bindparam("site_id"), col(Content.sha256).in_(bindparam("wanted", expanding=True))
)
_RECENT: Final = (
    select(Build.artifact_id, col(Build.cache)["inputs"].as_string().label("inputs"), Build.created_at, Build.id)
    .where(Build.env_id == bindparam("env_id"), Build.status == "succeeded", col(Build.artifact_id).is_not(None))
    .order_by(col(Build.created_at).desc(), col(Build.id).desc())
    .limit(RECENT)
    .subquery()
)
_SAME: Final = (
    select(_RECENT.c.artifact_id)
    .where(_RECENT.c.inputs == bindparam("inputs"))
    .order_by(_RECENT.c.created_at.desc(), _RECENT.c.id.desc())
    .limit(1)
)
_HOSTNAMES: Final = select(Hostname.name).where(Hostname.env_id == bindparam("env_id"))


@dataclass(frozen=True)
class Held:
    """Where a content lies."""

    pack: str
    offset: int
    size: int


def begin_attempt(session: Session, build_id: str) -> tuple[Build, Site]:
    """The next attempt of a build; whatever an earlier one sends is refused from now on.

    Raises job.canceled, attempt.stale (the build has ended) or build.not_found.
    """
    build = session.get(Build, build_id, with_for_update=True)
    if build is None:
        raise HeadwayError("build.not_found", f"There is no build {build_id}.")
    _require_open(session, build)
    build.attempt += 1
    if build.status == "queued":
        build.status = "running"
    build.started_at = build.started_at or utcnow()
    session.flush()
    return build, session.get_one(Site, build.site_id)


def require_attempt(session: Session, build_id: str, attempt: int, *, lock: bool = False) -> Build:
    """Raises attempt.stale where a later attempt has taken over, and as `begin_attempt`."""
    build = session.get(Build, build_id, with_for_update=lock or None)
    if build is None:
        raise HeadwayError("build.not_found", f"There is no build {build_id}.")
    if build.attempt != attempt:
        raise HeadwayError("attempt.stale", f"Attempt {build.attempt} has taken over from attempt {attempt}.")
    _require_open(session, build)
    return build


def note_commit(session: Session, build_id: str, attempt: int, commit: str) -> None:
    """Which commit a name has led to. Raises as `require_attempt`."""
    build = require_attempt(session, build_id, attempt, lock=True)
    if build.commit_sha is None and build.source is None:
        build.commit_sha = commit
        session.add(build)


def _require_open(session: Session, build: Build) -> None:
    job = session.get(Job, build.job_id)
    if job is None or job.cancel_requested_at is not None or job.status == "canceled" or build.status == "canceled":
        raise HeadwayError("job.canceled", f"The build {build.id} was canceled.")
    if build.finished_at is not None:
        raise HeadwayError("attempt.stale", f"The build {build.id} has ended: {build.status}.")


def held_contents(session: Session, site_id: str, wanted: Iterable[str]) -> dict[str, Held]:
    """Where the site's packs hold these contents."""
    found: dict[str, Held] = {}
    for batch in _batches(list(wanted)):
        rows = session.execute(_HELD, {"site_id": site_id, "wanted": batch})
        found |= {sha256: Held(pack, offset, size) for sha256, pack, offset, size in rows}
    return found


def earlier_artifact(session: Session, build: Build, inputs: str) -> Artifact | None:
    """The artifact of the newest finished build of this environment that took in the same.

    Of this environment only: who may build a preview must not choose what production gets.
    """
    same = session.execute(_SAME, {"env_id": build.env_id, "inputs": inputs}).scalar()
    artifact = session.get(Artifact, same) if same is not None else None
    return artifact if artifact is not None and artifact.collected_at is None else None


def packs_of(session: Session, artifact: Artifact) -> list[str]:
    return list(session.exec(_PACKS, params={"site_id": artifact.site_id, "digest": artifact.digest}))


def lease_packs(session: Session, build: Build, packs: Iterable[str], until: datetime) -> set[str]:
    """Keep these packs from collection; those that are there still."""
    lock_for_use(session, build.site_id)
    wanted = sorted(packs)
    there: set[str] = set()
    for batch in _batches(wanted):
        there |= set(
            session.exec(select(Pack.sha256).where(Pack.site_id == build.site_id, col(Pack.sha256).in_(batch)))
        )
    _lease(session, build, there, until)
    return there


def lease_upload(session: Session, build: Build, sha256: str, until: datetime) -> None:
    """Keep a pack that is about to be uploaded, or found to be there already. Raises upload.failed: it is going."""
    lock_for_use(session, build.site_id)
    require_not_doomed(session, build.site_id, pack_key(build.site_id, sha256))
    _lease(session, build, (sha256,), until)


def _lease(session: Session, build: Build, packs: Iterable[str], until: datetime) -> None:
    rows = [
        {"build_id": build.id, "site_id": build.site_id, "pack_sha256": sha256, "expires_at": until}
        for sha256 in sorted(packs)
    ]
    _insert_new(session, PackLease, rows, moved=("expires_at",))


def record_pack(
    session: Session, build: Build, pack: tuple[str, int], contents: Sequence[tuple[str, int, int]]
) -> None:
    """A pack that is in the object store, and some of its `(sha256, offset, size)` contents. Idempotent.

    The newest place of a content wins: a repack brings contents that older packs hold.
    """
    site_id = build.site_id
    _insert_new(session, Pack, [{"site_id": site_id, "sha256": pack[0], "size": pack[1], "created_at": utcnow()}])
    rows = [
        {"site_id": site_id, "sha256": sha256, "pack_sha256": pack[0], "offset": offset, "size": size}
        for sha256, offset, size in contents
    ]
    _insert_new(session, Content, rows, moved=("pack_sha256", "offset"))


def record_output(session: Session, build: Build, facts: dict[str, Any], packs: Iterable[str]) -> None:
    """A build's output in its row, and the packs that its artifact is made of. Idempotent.

    Raises upload.failed where what it is made of is being collected.
    """
    digest = facts["manifest_sha256"]
    lock_for_use(session, build.site_id)
    require_not_doomed(
        session, build.site_id, *(object_key(build.site_id, digest, part) for part in ("manifest", "layout", "bundle"))
    )
    named = [{"site_id": build.site_id, "digest": digest, "pack_sha256": one} for one in sorted(packs)]
    _insert_new(session, ArtifactPack, named)
    for name, value in facts.items():
        setattr(build, name, value)
    session.add(build)


def _insert_new(session: Session, table: Any, rows: list[dict[str, Any]], *, moved: tuple[str, ...] = ()) -> None:
    """Rows that are there stay as they are, but for the columns in `moved`."""
    insert = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}.get(
        session.get_bind().dialect.name, core_insert
    )
    statement = insert(table.__table__)
    if moved:
        changed = {name: statement.excluded[name] for name in moved}  # type: ignore[attr-defined]
        keys = list(table.__table__.primary_key.columns)
        statement = statement.on_conflict_do_update(index_elements=keys, set_=changed)  # type: ignore[attr-defined]
    else:
        statement = statement.on_conflict_do_nothing()  # type: ignore[attr-defined]
    for batch in _batches(rows):
        session.connection().execute(statement, batch)


@dataclass(frozen=True)
class Comes:
    """What will be placed, and on which hosts. `hostname`: of the environment, where it goes back to a service."""

    artifact: Artifact
    hosts: list[str]
    env_id: str
    hostname: str = ""

    @property
    def needs_no_start(self) -> bool:
        """Whether a host that has it may only have to show it."""
        return self.artifact.kind == "static" or bool(self.hostname)


def comes_to(session: Session, job: Job) -> Comes | None:
    """What the rollout that waits for its run brings; None where that is not known yet."""
    rollout = session.get(Rollout, job.resource_id)
    artifact = session.get(Artifact, rollout.artifact_id) if rollout is not None and rollout.artifact_id else None
    environment = session.get(Environment, rollout.env_id) if rollout is not None else None
    if rollout is None or artifact is None or artifact.collected_at is not None or environment is None:
        return None
    if rollout.status != "queued":
        return None
    back = rollout.kind == "rollback" and artifact.kind == "dynamic"
    names = hostnames(session, rollout.env_id) if back else []
    return Comes(artifact, hosts_for(session, environment), environment.id, next(iter(names), ""))


def built_for(session: Session, build_id: str) -> list[str]:
    """The hosts on which a build is to be placed once it is signed; none for one that nobody deploys."""
    build = session.get(Build, build_id)
    job = session.get(Job, build.job_id) if build is not None else None
    if build is None or job is None or job.resource_type != "deployment":
        return []
    environment = session.get(Environment, build.env_id)
    return hosts_for(session, environment) if environment is not None else []


@dataclass(frozen=True)
class ToPlace:
    rollout: Rollout
    artifact: Artifact
    packs: list[str]
    hostnames: list[str]


def to_place(session: Session, rollout_id: str) -> ToPlace:
    """What a host needs for a rollout that is carried out now. Raises deployment.not_found or attempt.stale."""
    rollout = session.get(Rollout, rollout_id)
    if rollout is None:
        raise HeadwayError("deployment.not_found", f"There is no deployment {rollout_id}.")
    if rollout.status != "running" or rollout.artifact_id is None or rollout.apply_seq is None:
        raise HeadwayError("attempt.stale", f"The deployment {rollout_id} is {rollout.status}: nothing to place.")
    artifact = session.get_one(Artifact, rollout.artifact_id)
    if artifact.collected_at is not None:
        raise HeadwayError("artifact.collected", f"The artifact {artifact.id} has been collected.")
    return ToPlace(rollout, artifact, sorted(packs_of(session, artifact)), hostnames(session, rollout.env_id))


def hostnames(session: Session, env_id: str) -> list[str]:
    """Every name that leads to an environment; none where that is gone."""
    if session.get(Environment, env_id) is None:
        raise HeadwayError("environment.not_found", f"There is no environment {env_id}.")
    return sorted(session.exec(_HOSTNAMES, params={"env_id": env_id}))


def _batches(items: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
