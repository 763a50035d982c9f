"""Ref polling: which remotes are due for a look, and what a look has seen that nobody had told of.

A look is claimed before it is made, and counts as failed until it has handed something in: whatever dies on the way,
the next one comes later each time, and does what is left to do.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, false, true
from sqlmodel import Session, col, delete, exists, or_, select

from headway.errors import HeadwayError
from store import credentials
from store.arrivals import KNOWN, Arrival, Judged, note
from store.models import Site, utcnow
from store.models_arrivals import RemoteBranch, RemoteWatch
from store.models_webhooks import ForgeHook
from store.paging import Page, fetch_page

Json = dict[str, Any]
ACTOR: Final[Json] = {"type": "poll", "id": "poll", "label": "ref polling"}
# How long a look may wait for its turn, and then take; what it hands in later is refused.
QUEUED: Final = timedelta(minutes=30)
LEASE: Final = timedelta(minutes=3)
LONGEST: Final = timedelta(hours=1)
BATCH: Final = 200


@dataclass(frozen=True)
class Look:
    site_id: str
    attempt: int


@dataclass(frozen=True)
class Watched:
    """How a site is polled: what was set, what follows from it, and how it went last."""

    enabled: bool | None
    active: bool
    interval: timedelta
    row: RemoteWatch | None


def watched(session: Session, site: Site, every: timedelta) -> Watched:
    row = session.get(RemoteWatch, site.id)
    active = session.exec(select(Site.id).where(Site.id == site.id, *_pollable(every))).first() is not None
    return Watched(row.enabled if row is not None else None, active, _interval(row, every), row)


def set_watch(session: Session, site: Site, changes: Json, every: timedelta) -> Watched:
    """`enabled` and `interval_seconds`, each where it is given; None: as the installation has it. Looked at soon.

    Raises repository.missing for a site whose repository is its own.
    """
    if site.repository is None:
        raise HeadwayError("repository.missing", "The site's repository is its own: pushes to it are known.")
    session.refresh(site, with_for_update=True)
    row = session.get(RemoteWatch, site.id) or RemoteWatch(site_id=site.id)
    for name, value in changes.items():
        setattr(row, name, value)
    row.next_at, row.failures = utcnow(), 0
    session.add(row)
    session.flush()
    return watched(session, site, every)


def any_due(session: Session, every: timedelta) -> bool:
    return session.exec(_due(every).limit(1)).first() is not None


def claim(session: Session, every: timedelta, *, limit: int) -> list[Look]:
    """Take what is due, the longest first. Each counts as failed until it hands something in."""
    looks, now = [], utcnow()
    for site_id in session.exec(_due(every).order_by(col(RemoteWatch.next_at), col(Site.id)).limit(limit)).all():
        row = session.get(RemoteWatch, site_id, with_for_update=True, populate_existing=True)
        if row is not None and row.next_at > now:
            continue  # another one has it
        row = row or RemoteWatch(site_id=site_id)
        pause = min(_interval(row, every) * 2 ** min(row.failures, 10), max(LONGEST, _interval(row, every)))
        row.attempt, row.failures = row.attempt + 1, row.failures + 1
        row.leased_until, row.next_at = now + QUEUED, now + _spread(pause)
        session.add(row)
        looks.append(Look(site_id, row.attempt))
    session.flush()
    return looks


def require_look(session: Session, site_id: str, attempt: int, *, lock: bool = False) -> tuple[Site, RemoteWatch]:
    """Raises attempt.stale where the look is over, or was never claimed; and site.not_found."""
    row = session.get(RemoteWatch, site_id, with_for_update=lock or None)
    if row is None or row.attempt != attempt or row.leased_until is None or row.leased_until < utcnow():
        raise HeadwayError("attempt.stale", f"Look {attempt} at {site_id} is over.")
    site = session.get(Site, site_id)
    if site is None or site.deleted_at is not None:
        raise HeadwayError("site.not_found", f"There is no site {site_id}.")
    return site, row


def begin_look(session: Session, site_id: str, attempt: int) -> Site:
    """From now on it sees the remote. Raises as `require_look`."""
    site, row = require_look(session, site_id, attempt, lock=True)
    row.leased_until = utcnow() + LEASE
    return site


def news(session: Session, site_id: str, attempt: int, seen: Mapping[str, str]) -> list[Arrival]:
    """What nobody had told of. Of what was told while the look was on its way, the look knows less.

    A look that sees no branch at all has not seen that all are gone: that is how a repository looks that was made anew.
    """
    _, row = require_look(session, site_id, attempt)
    assert row.leased_until is not None  # noqa: S101
    began = row.leased_until - LEASE
    rows = session.exec(select(RemoteBranch).where(RemoteBranch.site_id == site_id)).all()
    known = {one.branch: one for one in rows}
    fresh = {one.branch for one in rows if one.heard_at >= began}
    changed = [branch for branch, commit in seen.items() if branch not in known or known[branch].commit_sha != commit]
    found = [Arrival(branch, seen[branch], "poll", ACTOR) for branch in sorted(changed) if branch not in fresh]
    gone = sorted(one.branch for one in rows if one.commit_sha is not None and one.branch not in seen)
    if seen and row.seen_at is not None:
        found += [Arrival(branch, None, "poll", ACTOR) for branch in gone if branch not in fresh]
    return found


def begin(session: Session, site_id: str, attempt: int, arrivals: Sequence[Arrival]) -> None:
    """The first look at a site: what is there is taken as known, and deployed by whoever wants it."""
    site, _ = require_look(session, site_id, attempt)
    for arrival in arrivals:
        if session.get(RemoteBranch, (site_id, arrival.branch)) is None:
            note(session, site, arrival, Judged(KNOWN, "it was there when polling began"))
    session.flush()


def end(session: Session, site_id: str, attempt: int, every: timedelta) -> None:
    """Everything that was seen is dealt with."""
    _, row = require_look(session, site_id, attempt, lock=True)
    now = utcnow()
    row.failures, row.error, row.seen_at, row.leased_until = 0, None, now, None
    row.next_at = now + _spread(_interval(row, every))


def fail(session: Session, site_id: str, attempt: int, error: Json) -> None:
    _, row = require_look(session, site_id, attempt, lock=True)
    row.error, row.leased_until = error, None


def list_branches(session: Session, site_id: str, page: Page) -> tuple[Sequence[RemoteBranch], bool]:
    query = select(RemoteBranch).where(RemoteBranch.site_id == site_id)
    return fetch_page(session, query, page, time=RemoteBranch.heard_at, id=RemoteBranch.branch)


def forget_remote(session: Session, site_id: str) -> None:
    """A site is gone: so is all that was known of its remote, and what it was read with."""
    credentials.forget(session, [site_id])
    session.execute(delete(RemoteBranch).where(col(RemoteBranch.site_id) == site_id))
    session.execute(delete(RemoteWatch).where(col(RemoteWatch.site_id) == site_id))


def _due(every: timedelta) -> Any:
    query = select(Site.id).join(RemoteWatch, col(RemoteWatch.site_id) == col(Site.id), isouter=True)
    is_due = or_(col(RemoteWatch.site_id).is_(None), col(RemoteWatch.next_at) <= utcnow())
    return query.where(is_due, *_wanted(every), *_remote())


def _pollable(every: timedelta) -> list[ColumnElement[bool]]:
    watch = select(RemoteWatch.site_id).where(RemoteWatch.site_id == Site.id)
    off = exists(watch.where(col(RemoteWatch.enabled).is_(False)))
    on = exists(watch.where(col(RemoteWatch.enabled).is_(True)))
    return [or_(on, ~off & _by_itself(every)), *_remote()]


def _wanted(every: timedelta) -> list[ColumnElement[bool]]:
    by_itself = col(RemoteWatch.enabled).is_(None) & _by_itself(every)
    return [or_(col(RemoteWatch.enabled).is_(True), by_itself)]


def _by_itself(every: timedelta) -> ColumnElement[bool]:
    """A safety net for hooks: what no hook tells of is deployed by hand, unless polling is turned on."""
    hooked = exists(select(ForgeHook.id).where(col(ForgeHook.site_id) == col(Site.id)))
    return hooked & (true() if every else false())


def _remote() -> list[ColumnElement[bool]]:
    return [
        col(Site.repository).is_not(None),
        col(Site.deleted_at).is_(None),
        col(Site.status) == "active",
        col(Site.auto_deploy).is_(True),
    ]


def _interval(row: RemoteWatch | None, every: timedelta) -> timedelta:
    own = row.interval_seconds if row is not None else None
    return timedelta(seconds=own) if own is not None else every or timedelta(minutes=5)


def _spread(pause: timedelta) -> timedelta:
    """A tenth more or less, so that sites which began together do not stay together."""
    return pause * random.uniform(0.9, 1.1)  # noqa: S311
