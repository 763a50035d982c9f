"""Collection of what sandboxes leave in the object store: the same mark, wait, look again and delete as of artifacts.

A pack is needed by a file of a sandbox, by a snapshot that names it, or by a lease. A snapshot is needed by a build
that has not ended, by the last build of a deployment (`redeploy` runs it again), by a version whose artifact is there,
by a command that waits or runs, or by a lease. Whoever comes to need one changes its row first (`store/sandbox_packs`),
whoever collects locks the row: so each sees what the other has done. Every function is one transaction's work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, exists, func, not_, or_, tuple_, update
from sqlmodel import Session, col, select

from store.collection import Rules
from store.execs import TYPE
from store.models import Artifact, Build, Job, Site, utcnow
from store.models_retention import Doomed
from store.models_sandbox_packs import SandboxLease, SandboxPack, Snapshot, SnapshotPack
from store.models_sandboxes import Sandbox, SandboxFile
from store.sandboxes import pack_key, snapshot_key

Thing = SandboxPack | Snapshot


@dataclass(frozen=True)
class Name:
    """Which pack or snapshot."""

    team_id: str
    sha256: str


def _leased(table: type[Thing]) -> ColumnElement[bool]:
    return exists().where(
        col(SandboxLease.team_id) == col(table.team_id),
        col(SandboxLease.sha256) == col(table.sha256),
        col(SandboxLease.expires_at) > utcnow(),
    )


def pack_needed() -> ColumnElement[bool]:
    """That something needs a pack, as a condition on a query of packs."""
    filed = exists().where(
        col(SandboxFile.pack_sha256) == col(SandboxPack.sha256),
        col(Sandbox.id) == col(SandboxFile.sandbox_id),
        col(Sandbox.team_id) == col(SandboxPack.team_id),
    )
    named = exists().where(
        col(SnapshotPack.team_id) == col(SandboxPack.team_id),
        col(SnapshotPack.pack_sha256) == col(SandboxPack.sha256),
        col(SnapshotPack.left_at).is_(None),
    )
    return or_(_leased(SandboxPack), filed, named)


def snapshot_needed(session: Session) -> ColumnElement[bool]:
    """The same of snapshots."""
    whole = and_(col(Artifact.id) == col(Build.artifact_id), col(Artifact.collected_at).is_(None))
    last = and_(col(Build.number) == col(Site.build_count), col(Site.deleted_at).is_(None))
    built = exists().where(
        col(Build.snapshot_sha256) == col(Snapshot.sha256),
        col(Site.id) == col(Build.site_id),
        col(Site.team_id) == col(Snapshot.team_id),
        or_(col(Build.finished_at).is_(None), last, exists().where(whole)),
    )
    running = select(Job.input).where(Job.type == TYPE, col(Job.finished_at).is_(None))
    run = {(one or {}).get("sha256") for one in session.exec(running)} - {None}
    return or_(_leased(Snapshot), built, col(Snapshot.sha256).in_(sorted(run)))


def _needed(session: Session, table: type[Thing]) -> ColumnElement[bool]:
    return pack_needed() if table is SandboxPack else snapshot_needed(session)


def mark(session: Session, table: type[Thing], limit: int) -> int:
    """Mark what nothing needs; how many. Those that are left are for the next transaction."""
    query = select(table.team_id, table.sha256).where(col(table.marked_at).is_(None), not_(_needed(session, table)))
    found = session.execute(query.limit(limit)).all()
    if found:
        named = tuple_(col(table.team_id), col(table.sha256)).in_([tuple(one) for one in found])
        session.execute(update(table).where(named).values(marked_at=utcnow()))
    return len(found)


def unneeded(session: Session) -> dict[str, int]:
    """What a dry run tells: what would be marked now, and how many bytes of packs."""
    packs = (col(SandboxPack.marked_at).is_(None), not_(pack_needed()))
    snapshots = (col(Snapshot.marked_at).is_(None), not_(snapshot_needed(session)))
    count, size = session.execute(
        select(func.count(), func.coalesce(func.sum(col(SandboxPack.size)), 0)).select_from(SandboxPack).where(*packs)
    ).one()
    some = session.exec(select(func.count()).select_from(Snapshot).where(*snapshots)).one()
    return {"sandbox_packs": int(count), "sandbox_bytes": int(size), "snapshots": int(some)}


def due(session: Session, table: type[Thing], rules: Rules, limit: int) -> list[Name]:
    """What has been marked for long enough."""
    query = select(table.team_id, table.sha256).where(col(table.marked_at) <= utcnow() - rules.wait)
    return [Name(*one) for one in session.execute(query.order_by(col(table.marked_at)).limit(limit)).all()]


def collect(session: Session, table: type[Thing], rules: Rules, name: Name) -> tuple[bool, int]:
    """Whether it was taken, and its bytes. What is needed after all loses its mark."""
    kept: Any = session.get(table, (name.team_id, name.sha256), with_for_update=True, populate_existing=True)
    found: Thing | None = kept
    if found is None or found.marked_at is None or found.marked_at > utcnow() - rules.wait:
        return False, 0
    this = (table.team_id == name.team_id, table.sha256 == name.sha256)
    if session.exec(select(table.sha256).where(*this, _needed(session, table))).first() is not None:
        found.marked_at = None
        session.add(found)
        return False, 0
    session.delete(found)
    if isinstance(found, SandboxPack):
        key, size = pack_key(name.team_id, name.sha256), found.size
        rows = and_(col(SnapshotPack.team_id) == name.team_id, col(SnapshotPack.pack_sha256) == name.sha256)
    else:
        key, size = snapshot_key(name.team_id, name.sha256), 0
        rows = and_(col(SnapshotPack.team_id) == name.team_id, col(SnapshotPack.sha256) == name.sha256)
    session.execute(delete(SnapshotPack).where(rows))
    session.merge(Doomed(site_id=name.team_id, key=key))
    return True, size


def sweep_leases(session: Session) -> int:
    """Forget leases whose time is over; how many."""
    over = delete(SandboxLease).where(col(SandboxLease.expires_at) <= utcnow())
    return int(session.execute(over).rowcount)  # type: ignore[attr-defined]


def totals(session: Session) -> dict[str, int]:
    count, size = session.execute(
        select(func.count(), func.coalesce(func.sum(col(SandboxPack.size)), 0)).select_from(SandboxPack)
    ).one()
    snapshots = session.exec(select(func.count()).select_from(Snapshot)).one()
    return {"sandbox_packs": int(count), "sandbox_bytes": int(size), "snapshots": int(snapshots)}


# packs that are partly alive


def to_look_at(session: Session, rules: Rules, smallest: int, limit: int) -> Sequence[SandboxPack]:
    """Packs worth a copy whose share of dead bytes was not looked at for a while, the longest ago first."""
    looked = col(SandboxPack.looked_at)
    query = select(SandboxPack).where(
        SandboxPack.size >= smallest,
        col(SandboxPack.marked_at).is_(None),
        func.coalesce(looked, col(SandboxPack.created_at)) <= utcnow() - rules.wait,
    )
    return session.exec(query.order_by(looked.is_not(None), looked).limit(limit)).all()


def note_look(session: Session, name: Name) -> None:
    here = (col(SandboxPack.team_id) == name.team_id, col(SandboxPack.sha256) == name.sha256)
    session.execute(update(SandboxPack).where(*here).values(looked_at=utcnow()))


def places_in(session: Session, name: Name) -> dict[int, int]:
    """Sizes by offset of what files of sandboxes need of a pack."""
    query = (
        select(SandboxFile.offset, SandboxFile.size)
        .join(Sandbox, col(Sandbox.id) == col(SandboxFile.sandbox_id))
        .where(Sandbox.team_id == name.team_id, SandboxFile.pack_sha256 == name.sha256)
        .distinct()
    )
    return {int(offset): int(size) for offset, size in session.execute(query).all()}


def snapshots_of(session: Session, name: Name) -> list[str]:
    """Snapshots that name a pack."""
    query = select(SnapshotPack.sha256).where(
        SnapshotPack.team_id == name.team_id,
        SnapshotPack.pack_sha256 == name.sha256,
        col(SnapshotPack.left_at).is_(None),
    )
    return list(session.exec(query).all())


def move_files(session: Session, old: Name, new: str, moved: Iterable[tuple[int, int]]) -> None:
    """Files at an offset of the old pack are at another of the new one: the same bytes."""
    mine = col(SandboxFile.sandbox_id).in_(select(col(Sandbox.id)).where(Sandbox.team_id == old.team_id))
    for before, after in moved:
        here = and_(mine, col(SandboxFile.pack_sha256) == old.sha256, col(SandboxFile.offset) == before)
        session.execute(
            update(SandboxFile)
            .where(here)
            .values(pack_sha256=new, offset=after)
            .execution_options(synchronize_session=False)
        )


def name_also(session: Session, team_id: str, snapshot: str, pack: str) -> bool:
    """Before a snapshot is written anew with another pack; False where it is gone."""
    found = session.get(Snapshot, (team_id, snapshot), with_for_update=True, populate_existing=True)
    if found is None:
        return False
    session.merge(SnapshotPack(team_id=team_id, sha256=snapshot, pack_sha256=pack))
    return True


def leave(session: Session, team_id: str, snapshot: str, pack: str) -> bool:
    """After it was written anew without a pack. False where it was collected meanwhile: then it goes once more."""
    if session.get(Snapshot, (team_id, snapshot), with_for_update=True, populate_existing=True) is None:
        session.merge(Doomed(site_id=team_id, key=snapshot_key(team_id, snapshot)))
        return False
    row = session.get(SnapshotPack, (team_id, snapshot, pack))
    if row is not None:
        row.left_at = utcnow()
        session.add(row)
    return True
