"""Packs that are mostly dead: what counts of them is copied into a small one, and layouts follow a while later.

In two steps, with a wait between them and one behind: a host that has been told the one pack's address is done with
it before the layout names the other, and before the old pack goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import update
from sqlmodel import Session, col, select

from store.artifacts import pack_key
from store.collection import Rules, lock_for_collection
from store.models import Artifact, ArtifactPack, Content, Pack, utcnow
from store.models_retention import Doomed, Repack


@dataclass(frozen=True)
class Loose:
    """A pack that has lost a user, and the digests of those that it still has."""

    site_id: str
    sha256: str
    size: int
    digests: tuple[str, ...]


def loose_packs(session: Session, limit: int) -> list[Loose]:
    query = select(Pack).where(col(Pack.loosened_at).is_not(None)).order_by(col(Pack.loosened_at)).limit(limit)
    return [Loose(one.site_id, one.sha256, one.size, _users(session, one)) for one in session.exec(query).all()]


def _users(session: Session, pack: Pack) -> tuple[str, ...]:
    return tuple(users_of_pack(session, pack.site_id, pack.sha256))


def users_of_pack(session: Session, site_id: str, sha256: str) -> list[str]:
    """The digests of the artifacts whose layouts name a pack."""
    query = (
        select(Artifact.digest)
        .join(
            ArtifactPack,
            (col(ArtifactPack.site_id) == col(Artifact.site_id)) & (col(ArtifactPack.digest) == col(Artifact.digest)),
        )
        .where(
            Artifact.site_id == site_id,
            col(Artifact.collected_at).is_(None),
            ArtifactPack.pack_sha256 == sha256,
        )
    )
    return sorted(session.exec(query).all())


def settle(session: Session, loose: Loose) -> None:
    """It was looked at, and stays as it is; one without users keeps its mark: since then nobody names it."""
    if loose.digests:
        statement = update(Pack).where(col(Pack.site_id) == loose.site_id, col(Pack.sha256) == loose.sha256)
        session.execute(statement.values(loosened_at=None))


def note_copy(session: Session, loose: Loose, new: tuple[str, int], contents: Mapping[str, tuple[int, int]]) -> bool:
    """The new pack is in the object store: builds find contents there from now on, and its users name both packs.

    False where one of the two packs is being collected: then nothing has changed.
    """
    site_id, (sha256, size) = loose.site_id, new
    lock_for_collection(session, site_id)
    going = session.get(Doomed, (site_id, pack_key(site_id, sha256)))
    if going is not None or session.get(Pack, (site_id, loose.sha256)) is None:
        return False
    session.merge(Pack(site_id=site_id, sha256=sha256, size=size))
    for content, (offset, length) in contents.items():
        session.merge(Content(site_id=site_id, sha256=content, pack_sha256=sha256, offset=offset, size=length))
    for digest in _users(session, session.get_one(Pack, (site_id, loose.sha256))):
        session.merge(ArtifactPack(site_id=site_id, digest=digest, pack_sha256=sha256))
    index = {content: list(place) for content, place in contents.items()}
    session.merge(Repack(site_id=site_id, old_sha256=loose.sha256, new_sha256=sha256, contents=index))
    settle(session, loose)
    return True


def copied(session: Session, rules: Rules, limit: int) -> Sequence[Repack]:
    """Copies whose wait is over."""
    query = select(Repack).where(col(Repack.copied_at) < utcnow() - rules.wait)
    return session.exec(query.order_by(col(Repack.copied_at)).limit(limit)).all()


def users_of(session: Session, repack: Repack) -> tuple[str, ...]:
    pack = session.get(Pack, (repack.site_id, repack.old_sha256))
    return _users(session, pack) if pack is not None else ()


def name_copy(session: Session, repack: Repack, digest: str) -> bool:
    """Before a layout names the copy: its artifact may have come since that was made. False where the copy is gone."""
    lock_for_collection(session, repack.site_id)
    if session.get(Pack, (repack.site_id, repack.new_sha256)) is None:
        return False
    session.merge(ArtifactPack(site_id=repack.site_id, digest=digest, pack_sha256=repack.new_sha256))
    return True


def end_repack(session: Session, repack: Repack, moved: Iterable[str]) -> None:
    """These artifacts' layouts do not name the old pack any more; without users it is a stray one a while later."""
    lock_for_collection(session, repack.site_id)
    for digest in moved:
        found = session.get(ArtifactPack, (repack.site_id, digest, repack.old_sha256))
        if found is not None:
            session.delete(found)
    row = session.get(Repack, (repack.site_id, repack.old_sha256))
    if row is not None:
        session.delete(row)
    session.flush()
    pack = session.get(Pack, (repack.site_id, repack.old_sha256))
    if pack is not None:
        pack.loosened_at = None if _users(session, pack) else utcnow()
        session.add(pack)
