"""Caches of builds: an environment's builds write its own alone, and read production's where they have none.

So what production's builds find was left by production's builds: by those of its own branch, of a push that the site's
routes lead there, or of a published snapshot. Whoever may build any ref there but not roll it out would choose
what is signed next. Every function is one transaction's work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, or_
from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from store.collection import lock_for_collection, require_not_doomed
from store.models import Build, Environment, Site, utcnow
from store.models_caches import BuildCache
from store.models_retention import Doomed
from store.paging import Page, fetch_page


@dataclass(frozen=True)
class CacheRules:
    """`size`: bytes that a site's caches may take together; `idle`: how long one is kept that nobody asks for."""

    size: int = 4 << 30
    idle: timedelta = timedelta(days=14)


def cache_object(site_id: str, env_id: str, key: str, sha256: str) -> str:
    return f"sites/{site_id}/caches/{env_id}/{key}/{sha256}"


def list_caches(session: Session, site_id: str, page: Page) -> tuple[Sequence[BuildCache], bool]:
    query = select(BuildCache).where(BuildCache.site_id == site_id, col(BuildCache.ready))
    return fetch_page(session, query, page, time=BuildCache.created_at, id=BuildCache.sha256)


def drop_caches(session: Session, site_id: str, env_id: str | None) -> tuple[int, int]:
    """All of a site's, or of one of its environments; how many, and their bytes.

    A build that is on its way leaves nothing either: what it sends was not expected then.
    """
    lock_for_collection(session, site_id)
    query = select(BuildCache).where(BuildCache.site_id == site_id)
    found = session.exec(query if env_id is None else query.where(BuildCache.env_id == env_id)).all()
    for one in found:
        _drop(session, one)
    ready = [one.size for one in found if one.ready]
    return len(ready), sum(ready)


def leaves_cache(session: Session, build: Build) -> bool:
    """Whether a build's cache is kept for its environment's next one."""
    if build.trigger != "api" or build.env_id != session.get_one(Site, build.site_id).production_env_id:
        return True
    return build.ref == session.get_one(Environment, build.env_id).branch


def find_cache(session: Session, build: Build, key: str) -> BuildCache | None:
    """The newest that this build may read: its own environment's, else production's. It is used from now on."""
    site = session.get_one(Site, build.site_id)
    for env_id in dict.fromkeys((build.env_id, site.production_env_id)):
        query = select(BuildCache).where(
            BuildCache.site_id == site.id, BuildCache.env_id == env_id, BuildCache.key == key, col(BuildCache.ready)
        )
        found = session.exec(query.order_by(col(BuildCache.created_at).desc())).first()
        if found is not None:
            found.used_at = utcnow()
            session.add(found)
            return found
    return None


def expect_cache(session: Session, build: Build, key: str, sha256: str, size: int) -> str:
    """Where an environment's new cache goes. Raises upload.failed: the same object is being collected, or nothing of
    this build is kept."""
    if not leaves_cache(session, build):
        raise HeadwayError("upload.failed", "Production keeps caches of its own branch's builds alone.")
    name = cache_object(build.site_id, build.env_id, key, sha256)
    require_not_doomed(session, build.site_id, name)
    place = (build.site_id, build.env_id, key, sha256)
    if session.get(BuildCache, place) is None:
        session.add(BuildCache(site_id=place[0], env_id=place[1], key=key, sha256=sha256, size=size, build_id=build.id))
    return name


def keep_cache(session: Session, build: Build, key: str, sha256: str, rules: CacheRules) -> None:
    """What was uploaded counts from now on; the one before goes, and the longest unused past the quota.

    Raises upload.failed where it was not expected, or is gone again.
    """
    lock_for_collection(session, build.site_id)
    found = session.get(BuildCache, (build.site_id, build.env_id, key, sha256))
    if found is None:
        raise HeadwayError("upload.failed", "This cache was not expected, or has been collected meanwhile.")
    found.ready, found.used_at = True, utcnow()
    session.add(found)
    session.flush()
    older = select(BuildCache).where(
        BuildCache.site_id == build.site_id,
        BuildCache.env_id == build.env_id,
        BuildCache.key == key,
        BuildCache.sha256 != sha256,
        col(BuildCache.ready),
    )
    for one in session.exec(older).all():
        _drop(session, one)
    session.flush()
    _fit(session, found, rules)


def _fit(session: Session, kept: BuildCache, rules: CacheRules) -> None:
    """Production's stay longest: a preview that writes much must not make production's builds slow."""
    production = session.get_one(Site, kept.site_id).production_env_id
    newest = (col(BuildCache.used_at).desc(), col(BuildCache.created_at).desc())
    query = select(BuildCache).where(BuildCache.site_id == kept.site_id, col(BuildCache.ready)).order_by(*newest)
    total = 0
    for one in sorted(session.exec(query).all(), key=lambda one: one.env_id != production):
        total += one.size
        if total > rules.size and one is not kept:
            _drop(session, one)


def unused_caches(session: Session, rules: CacheRules, wait: timedelta, limit: int) -> Sequence[BuildCache]:
    """Those that nobody has asked for, whose environment or site is gone, or that were never uploaded."""
    gone = or_(
        col(Environment.id).is_(None), col(Environment.deleted_at).is_not(None), col(Site.deleted_at).is_not(None)
    )
    unused = col(BuildCache.used_at) < utcnow() - rules.idle
    never = col(BuildCache.ready).is_(False) & (col(BuildCache.created_at) < utcnow() - wait)
    query = (
        select(BuildCache)
        .outerjoin(Environment, col(Environment.id) == col(BuildCache.env_id))
        .outerjoin(Site, col(Site.id) == col(BuildCache.site_id))
        .where(or_(gone, unused, never))
    )
    return session.exec(query.limit(limit)).all()


def drop_cache(session: Session, one: BuildCache, since: datetime) -> bool:
    """Forget one that was found unused at `since`, if nobody has asked for it meanwhile."""
    lock_for_collection(session, one.site_id)
    row = session.get(BuildCache, (one.site_id, one.env_id, one.key, one.sha256), populate_existing=True)
    if row is None or row.used_at > since:
        return False
    _drop(session, row)
    return True


def cached_bytes(session: Session) -> int:
    return int(
        session.exec(select(func.coalesce(func.sum(col(BuildCache.size)), 0)).where(col(BuildCache.ready))).one()
    )


def _drop(session: Session, one: BuildCache) -> None:
    session.merge(Doomed(site_id=one.site_id, key=cache_object(one.site_id, one.env_id, one.key, one.sha256)))
    session.delete(one)
