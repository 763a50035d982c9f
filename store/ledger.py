"""The ledger's rows: one writer at a time appends, anybody reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import and_, bindparam, exists, or_, text
from sqlmodel import Session, SQLModel, col, select

from headway.errors import HeadwayError
from store.config_sets import configurations
from store.models import Artifact, Environment, Release, Rollout, utcnow
from store.models_integrity import Finding
from store.models_ledger import LedgerDocument, LedgerEntry, LedgerHead, LedgerNode
from store.models_policy import AuditRow, Decision, Policy

# Documents that the ledger publishes.
KEYRING: Final = "keyring"
SIGSTORE: Final = "sigstore"
_LOCK = 4857204  # any fixed number: appends on PostgreSQL wait for each other
# Core statements, built once: an append is measured against a bare commit, and the ORM takes longer than the database.
_ENTRY, _NODE, _HEAD = (SQLModel.metadata.tables[f"ledger_{name}"] for name in ("entry", "node", "head"))
_INSERT_ENTRY, _INSERT_NODE, _INSERT_HEAD = _ENTRY.insert(), _NODE.insert(), _HEAD.insert()
_NEWEST = select(_HEAD.c.size, _HEAD.c.root, _HEAD.c.note).order_by(_HEAD.c.size.desc()).limit(1)
_DOCUMENT = (
    select(LedgerDocument)
    .where(LedgerDocument.name == bindparam("name"))
    .order_by(col(LedgerDocument.version).desc())
    .limit(1)
)
_UNLOGGED = (
    select(Release, Rollout, Artifact, Environment)
    .join(Rollout, col(Rollout.id) == Release.rollout_id)
    .join(Artifact, col(Artifact.id) == Release.artifact_id)
    .join(Environment, col(Environment.id) == Release.env_id)
    .where(col(Release.log_index).is_(None))
    .order_by(col(Release.deployed_at), col(Release.id))
)
_WAITS = select(
    or_(
        exists().where(col(Release.log_index).is_(None)),
        exists().where(col(Policy.log_index).is_(None)),
        exists().where(col(Decision.log_index).is_(None), col(Decision.decided_at).is_not(None)),
        exists().where(col(Finding.log_index).is_(None), col(Finding.settled_at).is_not(None)),
        exists().where(col(AuditRow.seq).is_(None)),
    )
)
_ABOUT = select(_ENTRY.c.index).where(_ENTRY.c.subject == bindparam("about"))


def lock(session: Session) -> None:
    """Make this transaction the only one that appends. On SQLite every write transaction is alone already."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))


def head(session: Session, size: int | None = None) -> LedgerHead | None:
    """The newest checkpoint, or the one of that size; None where there is none."""
    if size is not None:
        return session.get(LedgerHead, size)
    return session.exec(select(LedgerHead).order_by(col(LedgerHead.size).desc()).limit(1)).first()


def open_head(session: Session) -> LedgerHead:
    """The newest checkpoint. Raises service.unavailable while there is no ledger yet."""
    found = head(session)
    if found is None:
        raise HeadwayError("service.unavailable", "The signing worker has not opened the ledger yet.")
    return found


def newest(session: Session) -> tuple[int, bytes, str]:
    """Size, root and note of the newest checkpoint: `open_head` for who appends. Raises service.unavailable."""
    found = session.connection().execute(_NEWEST).first()
    if found is None:
        raise HeadwayError("service.unavailable", "The signing worker has not opened the ledger yet.")
    return found[0], found[1], found[2]


def is_entered(session: Session, subject: str) -> bool:
    return session.connection().execute(_ABOUT, {"about": subject}).first() is not None


def nodes(session: Session, wanted: Sequence[tuple[int, int]]) -> Mapping[tuple[int, int], bytes]:
    """Hashes of complete subtrees by level and index."""
    if not wanted:
        return {}
    columns = (col(LedgerNode.level), col(LedgerNode.index), col(LedgerNode.hash))
    levels: dict[int, list[int]] = {}
    for level, index in wanted:
        levels.setdefault(level, []).append(index)
    # Level by level: SQLite answers a list of pairs by reading the whole table.
    query = select(*columns).where(
        or_(*(and_(columns[0] == level, columns[1].in_(at)) for level, at in levels.items()))
    )
    return {(level, index): hash for level, index, hash in session.execute(query)}


def entry(session: Session, index: int) -> LedgerEntry:
    """Raises ledger.entry_not_found."""
    found = session.get(LedgerEntry, index) if index < 1 << 62 else None
    if found is None:
        raise HeadwayError("ledger.entry_not_found", f"The ledger has no entry {index}.", param="index")
    return found


def entry_about(session: Session, subject: str) -> LedgerEntry | None:
    return session.exec(select(LedgerEntry).where(LedgerEntry.subject == subject)).first()


def entries(session: Session, start: int, limit: int) -> Sequence[LedgerEntry]:
    """Up to `limit` entries from `start` on, in order."""
    query = select(LedgerEntry).where(col(LedgerEntry.index) >= start, col(LedgerEntry.index) < start + limit)
    return session.exec(query.order_by(col(LedgerEntry.index))).all()


def append(
    session: Session, new: Mapping[str, Any], grown: Mapping[tuple[int, int], bytes], new_head: tuple[int, bytes, str]
) -> None:
    """Add an entry (its columns) with the nodes and the checkpoint (size, root, note) that it makes, under `lock`."""
    made = [{"level": level, "index": index, "hash": hash} for (level, index), hash in grown.items()]
    connection = session.connection()
    connection.execute(_INSERT_ENTRY, new)
    connection.execute(_INSERT_NODE, made)
    connection.execute(
        _INSERT_HEAD, dict(zip(("size", "root", "note"), new_head, strict=True)) | {"created_at": utcnow()}
    )


def document(session: Session, name: str) -> LedgerDocument | None:
    """The newest version."""
    return session.exec(_DOCUMENT, params={"name": name}).first()


def publish_version(session: Session, name: str, version: int, body: bytes) -> None:
    """Add exactly this version. The primary key refuses a second one."""
    session.add(LedgerDocument(name=name, version=version, body=body))
    session.flush()


def publish(session: Session, name: str, body: bytes) -> int:
    """Add a version of a document, unless the newest says the same; its version."""
    standing = document(session, name)
    if standing is not None and standing.body == body:
        return standing.version
    made = LedgerDocument(name=name, version=standing.version + 1 if standing else 1, body=body)
    session.add(made)
    session.flush()
    return made.version


@dataclass(frozen=True)
class Unlogged:
    """A release that the ledger does not hold yet, with what its entry says."""

    release: Release
    rollout: Rollout
    artifact: Artifact
    environment: Environment
    config: Sequence[str]
    decision: Decision | None


def has_unlogged(session: Session) -> bool:
    """Whether anything may wait for its entry, or its link in the audit log's chain: one question, asked often."""
    return bool(session.connection().execute(_WAITS).scalar())


def unlogged_releases(session: Session, limit: int) -> list[Unlogged]:
    """The oldest first: entries are in the order of the switches."""
    found = session.exec(_UNLOGGED.limit(limit)).all()
    if not found:
        return []
    config = configurations(session, [(release.env_id, release.config_version) for release, *_ in found])
    wanted = select(Decision).where(col(Decision.rollout_id).in_([rollout.id for _, rollout, *_ in found]))
    decisions = {one.rollout_id: one for one in session.exec(wanted)}
    return [
        Unlogged(
            release,
            rollout,
            artifact,
            environment,
            [value.id for value in config[release.env_id, release.config_version]],
            decisions.get(rollout.id),
        )
        for release, rollout, artifact, environment in found
    ]


def unlogged_decisions(session: Session, limit: int) -> list[tuple[Decision, Rollout, Artifact]]:
    """Decisions that are final and that the ledger does not hold yet, the oldest first."""
    query = (
        select(Decision, Rollout, Artifact)
        .join(Rollout, col(Rollout.id) == Decision.rollout_id)
        .join(Artifact, col(Artifact.id) == Decision.artifact_id)
        .where(col(Decision.log_index).is_(None), col(Decision.decided_at).is_not(None))
        .order_by(col(Decision.decided_at), col(Decision.id))
        .limit(limit)
    )
    return list(session.exec(query).all())


def unlogged_policies(session: Session, limit: int) -> Sequence[Policy]:
    """Versions of policies that the ledger does not hold yet, the oldest first."""
    query = select(Policy).where(col(Policy.log_index).is_(None))
    return session.exec(query.order_by(col(Policy.created_at), col(Policy.id)).limit(limit)).all()


def entries_of_kind(session: Session, kind: str, start: int, limit: int) -> Sequence[LedgerEntry]:
    """Up to `limit` entries of a kind from index `start` on, in order."""
    query = select(LedgerEntry).where(LedgerEntry.kind == kind, col(LedgerEntry.index) >= start)
    return session.exec(query.order_by(col(LedgerEntry.index)).limit(limit)).all()


def unlogged_artifacts(session: Session, limit: int, after: str = "") -> Sequence[Artifact]:
    """Artifacts whose bundles carry no entry: those that were signed before there was a ledger."""
    query = select(Artifact).where(
        col(Artifact.log_index).is_(None), col(Artifact.collected_at).is_(None), col(Artifact.id) > after
    )
    return session.exec(query.order_by(col(Artifact.id)).limit(limit)).all()
