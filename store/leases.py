"""Who works at what: a build, a command or a look is one process's, from its begin until it lets go or falls silent.

What a builder's credential opens is no more than that: neither another builder, nor another process with the same
credential, has a say in work that somebody is at.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlmodel import Session, col, delete

from headway.errors import HeadwayError
from store.models import utcnow
from store.models_builders import Builder, BuilderLease

# A builder says something every 0.8 s; Temporal gives its work to another after 5 s without a beat.
SILENT: Final = timedelta(seconds=6)
BEAT: Final = timedelta(seconds=2)
# Whose work ended well does not let go: nobody can do anything with it then.
FORGOTTEN: Final = timedelta(days=1)


@dataclass(frozen=True)
class Holder:
    """A process of a builder: `builder_id` by its credential, `sha256` of what that process alone knows.

    `since`: from when the broker has listened. Who could not be heard before that is not silent.
    """

    builder_id: str
    sha256: str
    since: datetime


def take(session: Session, subject_id: str, holder: Holder) -> None:
    """The subject's own row is locked by the caller. Raises attempt.held: another process is at it."""
    now = utcnow()
    row = session.get(BuilderLease, subject_id, with_for_update=True)
    if row is None:
        session.execute(delete(BuilderLease).where(col(BuilderLease.heard_at) < now - FORGOTTEN))
        row = BuilderLease(subject_id=subject_id, builder_id=holder.builder_id, holder_sha256=holder.sha256)
    elif not _is(row, holder) and max(row.heard_at, holder.since) > now - SILENT:
        raise HeadwayError("attempt.held", f"The builder {row.builder_id} is at {subject_id}, and was heard just now.")
    row.builder_id, row.holder_sha256, row.heard_at = holder.builder_id, holder.sha256, now
    session.add(row)
    _note_use(session, holder.builder_id, now)
    session.flush()


def is_fresh(session: Session, subject_id: str, holder: Holder) -> bool:
    """Whether it was noted just now that the holder was heard. Raises attempt.stale where it is not the holder."""
    row = session.get(BuilderLease, subject_id)
    if row is None or not _is(row, holder):
        raise HeadwayError("attempt.stale", f"{subject_id} is not this builder's.")
    return row.heard_at > utcnow() - BEAT


def renew(session: Session, subject_id: str, holder: Holder) -> None:
    """The holder was heard. Raises as `is_fresh`."""
    row = session.get(BuilderLease, subject_id, with_for_update=True)
    if row is None or not _is(row, holder):
        raise HeadwayError("attempt.stale", f"{subject_id} is not this builder's.")
    row.heard_at = utcnow()
    session.add(row)


def let_go(session: Session, subject_id: str, holder: Holder) -> None:
    """Another may begin at once. Nothing where it is not the holder's."""
    row = session.get(BuilderLease, subject_id, with_for_update=True)
    if row is not None and _is(row, holder):
        session.delete(row)


def end_all(session: Session, builder_id: str) -> None:
    """Nothing is that builder's any more."""
    session.execute(delete(BuilderLease).where(col(BuilderLease.builder_id) == builder_id))


def _is(row: BuilderLease, holder: Holder) -> bool:
    return row.builder_id == holder.builder_id and row.holder_sha256 == holder.sha256


def _note_use(session: Session, builder_id: str, now: datetime) -> None:
    found = session.get(Builder, builder_id)
    if found is not None:
        found.last_used_at = now
        session.add(found)
