"""Packs and snapshots of sandboxes, noted and leased before anybody uploads them or counts on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, SQLModel, col, select

from store.collection import require_not_doomed
from store.models import utcnow
from store.models_sandbox_packs import SandboxLease, SandboxPack, Snapshot, SnapshotPack
from store.sandboxes import pack_key, snapshot_key

Json = dict[str, Any]
BATCH: Final = 400
LEASE: Final = timedelta(hours=1)
_INSERT: Final[dict[str, Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def hold(session: Session, team_id: str, holder: str, packs: Mapping[str, int]) -> None:
    """Lease packs by sha256 and size: they stay until the holder lets go, or an hour has passed.

    Rows first, then the look at what is being deleted: so this and a collection see one another.

    Raises upload.failed: one of them is going at this moment.
    """
    _note(session, SandboxPack, [_pack(team_id, sha256, size) for sha256, size in sorted(packs.items())])
    for some in _batches(sorted(packs)):
        require_not_doomed(session, team_id, *(pack_key(team_id, one) for one in some))
    _lease(session, team_id, holder, packs)


def hold_snapshot(session: Session, team_id: str, holder: str, sha256: str, packs: Iterable[str]) -> None:
    """Note a snapshot and the packs that it names, which the same holder has leased; the lease is on it from now on.

    One that is there already may name others: then all of them are kept. Raises upload.failed: it is going.
    """
    now = utcnow()
    _note(session, Snapshot, [{"team_id": team_id, "sha256": sha256, "created_at": now, "marked_at": None}])
    require_not_doomed(session, team_id, snapshot_key(team_id, sha256))
    rows = [{"team_id": team_id, "sha256": sha256, "pack_sha256": one, "left_at": None} for one in sorted(packs)]
    _note(session, SnapshotPack, rows, changed="left_at")
    release(session, holder)
    _lease(session, team_id, holder, [sha256])


def release(session: Session, holder: str) -> None:
    session.execute(delete(SandboxLease).where(col(SandboxLease.holder) == holder))


def is_noted(session: Session, team_id: str, sha256: str) -> bool:
    return session.get(Snapshot, (team_id, sha256)) is not None


def named_packs(session: Session, team_id: str, sha256: str, wanted: Iterable[str]) -> list[str]:
    """Those of the wanted packs that a snapshot names, or did a while ago."""
    query = select(SnapshotPack.pack_sha256).where(
        SnapshotPack.team_id == team_id,
        SnapshotPack.sha256 == sha256,
        col(SnapshotPack.pack_sha256).in_(sorted(wanted)),
    )
    return list(session.exec(query).all())


def _pack(team_id: str, sha256: str, size: int) -> Json:
    return {"team_id": team_id, "sha256": sha256, "size": size, "created_at": utcnow(), "marked_at": None}


def _lease(session: Session, team_id: str, holder: str, named: Iterable[str]) -> None:
    until = utcnow() + LEASE
    rows = [{"holder": holder, "team_id": team_id, "sha256": one, "expires_at": until} for one in sorted(named)]
    _note(session, SandboxLease, rows, changed="expires_at")


def _note(session: Session, table: type[SQLModel], rows: list[Json], *, changed: str = "marked_at") -> None:
    """Rows that are there are locked by the change of one column, so that a collection waits and looks again."""
    if not rows:
        return
    of = SQLModel.metadata.tables[str(table.__tablename__)]
    statement = _INSERT[session.get_bind().dialect.name](of)
    keys = [column.name for column in of.primary_key.columns]
    statement = statement.on_conflict_do_update(index_elements=keys, set_={changed: statement.excluded[changed]})
    for some in _batches(rows):
        session.connection().execute(statement, list(some))


def _batches(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
