"""Collection: what nothing needs any more is marked, looked at again after a while, and only then collected.

Never taken: what is current somewhere, waits, is built, was replaced a moment ago (it is warm on its hosts), or is
kept by hand. Rows stay; packs go when no artifact and no lease names them. Every function is one transaction's work.

Whoever leases a pack or records an output locks the site's row for reading, whoever collects locks it for writing;
whoever asks for a rollout locks the artifact's row for reading. So each sees what the other has done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, delete, exists, func, not_, or_
from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from store.artifacts import object_key, pack_key
from store.bills import bill_key, bills_of
from store.models import (
    Artifact,
    ArtifactPack,
    Build,
    Content,
    Environment,
    Job,
    Pack,
    PackLease,
    Release,
    Rollout,
    Site,
    utcnow,
)
from store.models_retention import Doomed, Repack

PARTS: Final = ("manifest", "layout", "bundle")


@dataclass(frozen=True)
class Rules:
    """`after`: how long what was replaced is kept, never less than `warm`. `wait`: longer than any job lasts."""

    after: timedelta = timedelta(days=30)
    wait: timedelta = timedelta(hours=24)
    warm: timedelta = timedelta(minutes=15)

    def cutoff(self) -> datetime:
        return utcnow() - max(self.after, self.warm)


def needed() -> ColumnElement[bool]:
    """That something needs an artifact, as a condition on a query of artifacts."""
    current = (
        exists()
        .where(col(Release.artifact_id) == col(Artifact.id), col(Release.current))
        .where(col(Environment.id) == col(Release.env_id), col(Environment.deleted_at).is_(None))
    )
    waiting = exists().where(col(Rollout.artifact_id) == col(Artifact.id), col(Rollout.finished_at).is_(None))
    built = exists().where(
        col(Build.artifact_id) == col(Artifact.id), col(Job.id) == col(Build.job_id), col(Job.finished_at).is_(None)
    )
    coming = exists().where(
        col(Build.site_id) == col(Artifact.site_id),
        col(Build.manifest_sha256) == col(Artifact.digest),
        col(Build.finished_at).is_(None),
    )
    return or_(col(Artifact.kept), current, waiting, built, coming)


def left_at(session: Session, artifact: Artifact) -> datetime:
    """When it was last of use: replaced, stopped or deleted with its environment; else when it was made."""
    moments = [artifact.created_at, artifact.signed_at]
    query = select(Release, Environment).join(Environment, col(Environment.id) == col(Release.env_id))
    for release, environment in session.exec(query.where(Release.artifact_id == artifact.id)).all():
        next_one = select(func.min(Release.seq)).where(Release.env_id == release.env_id, col(Release.seq) > release.seq)
        replaced = select(Release.deployed_at).where(
            Release.env_id == release.env_id, col(Release.seq) == next_one.scalar_subquery()
        )
        stopped = select(Rollout.finished_at).where(
            Rollout.env_id == release.env_id,
            Rollout.kind == "stop",
            Rollout.status == "succeeded",
            col(Rollout.apply_seq) > release.seq,
        )
        ends = [session.exec(replaced).first(), session.exec(stopped.order_by(col(Rollout.apply_seq))).first()]
        known = [one for one in (*ends, environment.deleted_at) if one is not None]
        moments.append(min(known) if known else release.deployed_at)
    return max(moments)


def candidates(session: Session, rules: Rules, after: str, limit: int) -> Sequence[Artifact]:
    """What may be marked, behind the id `after`: whether it left long enough ago is `left_at`'s to say."""
    query = select(Artifact).where(
        col(Artifact.collected_at).is_(None),
        col(Artifact.marked_at).is_(None),
        col(Artifact.created_at) < rules.cutoff(),
        not_(needed()),
        col(Artifact.id) > after,
    )
    return session.exec(query.order_by(col(Artifact.id)).limit(limit)).all()


def mark(
    session: Session, rules: Rules, after: str, limit: int, *, dry_run: bool = False
) -> tuple[list[Artifact], str]:
    """What is marked now of those behind an id, and where to go on; "" at the end."""
    looked_at = candidates(session, rules, after, limit)
    cutoff = rules.cutoff()
    found = [one for one in looked_at if left_at(session, one) < cutoff]
    if not dry_run:
        for one in found:
            one.marked_at = utcnow()
            session.add(one)
    return found, looked_at[-1].id if len(looked_at) == limit else ""


def due(session: Session, rules: Rules, limit: int) -> Sequence[str]:
    """Artifacts that have been marked for long enough."""
    query = select(Artifact.id).where(
        col(Artifact.marked_at) < utcnow() - rules.wait, col(Artifact.collected_at).is_(None)
    )
    return session.exec(query.order_by(col(Artifact.marked_at)).limit(limit)).all()


def collect(session: Session, rules: Rules, artifact_id: str) -> bool:
    """Collect a marked artifact, or take the mark away where it is needed after all. Idempotent.

    Its packs go with it, but for those that others name or that a build has leased.
    """
    site_id = session.exec(select(Artifact.site_id).where(Artifact.id == artifact_id)).one()
    lock_for_collection(session, site_id)
    artifact = session.get_one(Artifact, artifact_id, with_for_update=True, populate_existing=True)
    if artifact.marked_at is None or artifact.collected_at is not None:
        return False
    artifact.marked_at = None
    session.add(artifact)
    wanted = select(Artifact.id).where(Artifact.id == artifact_id, needed())
    if session.exec(wanted).first() is not None or left_at(session, artifact) >= rules.cutoff():
        return False
    artifact.collected_at = utcnow()
    of_it = (ArtifactPack.site_id == site_id, ArtifactPack.digest == artifact.digest)
    packs = session.exec(select(ArtifactPack.pack_sha256).where(*of_it)).all()
    session.execute(delete(ArtifactPack).where(*of_it))  # type: ignore[arg-type]
    session.flush()
    for part in PARTS:
        _doom(session, site_id, object_key(site_id, artifact.digest, part))
    for bill in bills_of(session, site_id, artifact.digest):
        _doom(session, site_id, bill_key(site_id, bill.digest, bill.sha256))
        session.delete(bill)
    for sha256 in sorted(packs):
        if not _doom_pack(session, site_id, sha256) and (pack := session.get(Pack, (site_id, sha256))) is not None:
            pack.loosened_at = utcnow()
            session.add(pack)
    return True


def lock_for_collection(session: Session, site_id: str) -> None:
    session.get_one(Site, site_id, with_for_update={"key_share": True}, populate_existing=True)


def _doom(session: Session, site_id: str, key: str) -> None:
    session.merge(Doomed(site_id=site_id, key=key))


def _doom_pack(session: Session, site_id: str, sha256: str) -> bool:
    """Whether it was nobody's. The site's row is locked."""
    named = select(ArtifactPack.digest).where(ArtifactPack.site_id == site_id, ArtifactPack.pack_sha256 == sha256)
    leased = select(PackLease.build_id).where(
        PackLease.site_id == site_id, PackLease.pack_sha256 == sha256, col(PackLease.expires_at) > utcnow()
    )
    copied = select(Repack.old_sha256).where(Repack.site_id == site_id, Repack.old_sha256 == sha256)
    if any(session.exec(query).first() is not None for query in (named, leased, copied)):
        return False
    session.execute(
        delete(Content).where(col(Content.site_id) == site_id, col(Content.pack_sha256) == sha256),
    )
    session.execute(delete(Pack).where(col(Pack.site_id) == site_id, col(Pack.sha256) == sha256))
    _doom(session, site_id, pack_key(site_id, sha256))
    return True


def sweep_leases(session: Session) -> int:
    """End leases whose time is over or whose build has ended; how many."""
    over = select(col(Build.id)).where(col(Build.finished_at).is_not(None))
    ended = delete(PackLease).where(
        or_(col(PackLease.expires_at) <= utcnow(), col(PackLease.build_id).in_(over)),
    )
    return int(session.execute(ended).rowcount)  # type: ignore[attr-defined]


def stray_packs(session: Session, rules: Rules, limit: int) -> list[tuple[str, str]]:
    """Packs that no artifact has named for a while: of builds that failed, or replaced by smaller ones."""
    before = utcnow() - rules.wait
    alive = exists().where(
        col(ArtifactPack.site_id) == col(Pack.site_id),
        col(ArtifactPack.pack_sha256) == col(Pack.sha256),
        _names_something(),
    )
    leased = exists().where(col(PackLease.site_id) == col(Pack.site_id), col(PackLease.pack_sha256) == col(Pack.sha256))
    copied = exists().where(col(Repack.site_id) == col(Pack.site_id), col(Repack.old_sha256) == col(Pack.sha256))
    query = select(Pack.site_id, Pack.sha256).where(
        func.coalesce(col(Pack.loosened_at), col(Pack.created_at)) < before, not_(or_(alive, leased, copied))
    )
    return [(site_id, sha256) for site_id, sha256 in session.exec(query.limit(limit)).all()]


def _names_something() -> ColumnElement[bool]:
    """That a row of `artifact_pack` is of an artifact that is there, or that a build is about to make."""
    there = exists().where(
        col(Artifact.site_id) == col(ArtifactPack.site_id),
        col(Artifact.digest) == col(ArtifactPack.digest),
        col(Artifact.collected_at).is_(None),
    )
    coming = exists().where(
        col(Build.site_id) == col(ArtifactPack.site_id),
        col(Build.manifest_sha256) == col(ArtifactPack.digest),
        col(Build.finished_at).is_(None),
    )
    return or_(there, coming)


def drop_pack(session: Session, site_id: str, sha256: str) -> bool:
    """Take a stray pack, if it is one still."""
    lock_for_collection(session, site_id)
    void = and_(col(ArtifactPack.site_id) == site_id, col(ArtifactPack.pack_sha256) == sha256, not_(_names_something()))
    session.execute(delete(ArtifactPack).where(void))
    session.flush()
    return _doom_pack(session, site_id, sha256)


def doomed(session: Session, limit: int) -> Sequence[Doomed]:
    return session.exec(select(Doomed).order_by(col(Doomed.doomed_at)).limit(limit)).all()


def forget_doomed(session: Session, rows: Sequence[Doomed]) -> None:
    """Their objects are gone: the keys may be written anew."""
    for row in rows:
        found = session.get(Doomed, (row.site_id, row.key))
        if found is not None:
            session.delete(found)


def require_not_doomed(session: Session, site_id: str, *keys: str) -> None:
    """Raises upload.failed, which is tried again: the object is being deleted at this moment."""
    if session.exec(select(Doomed.key).where(Doomed.site_id == site_id, col(Doomed.key).in_(keys))).first() is not None:
        raise HeadwayError("upload.failed", "The same object is being collected: it is uploaded anew in a moment.")


def are_packs_there(session: Session, site_id: str, packs: Sequence[str]) -> bool:
    """Whether each of an artifact's packs has a row."""
    query = select(func.count()).select_from(Pack).where(Pack.site_id == site_id, col(Pack.sha256).in_(packs))
    return session.exec(query).one() == len(packs)


def lock_for_use(session: Session, site_id: str) -> None:
    """Nothing of this site is collected until the transaction's end."""
    session.get_one(Site, site_id, with_for_update={"read": True})


def totals(session: Session) -> dict[str, Any]:
    """What there is to tell an operator at any time."""

    def count(*conditions: Any) -> int:
        return int(session.exec(select(func.count()).select_from(Artifact).where(*conditions)).one())

    there = col(Artifact.collected_at).is_(None)
    size = session.exec(select(func.coalesce(func.sum(col(Pack.size)), 0))).one()
    return {
        "artifacts": count(there),
        "marked": count(there, col(Artifact.marked_at).is_not(None)),
        "kept": count(there, col(Artifact.kept)),
        "collected": count(col(Artifact.collected_at).is_not(None)),
        "pack_bytes": int(size),
        "doomed": int(session.exec(select(func.count()).select_from(Doomed)).one()),
    }
