"""Drifts: what hosts found and mended, and what is to be mended through the environment's order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlmodel import Session, col, select

from headway.broker import DriftNote
from store.lifecycle import add_action
from store.models import Environment, Job, Rollout, Site, utcnow
from store.models_lifecycle import Drift
from store.paging import Page, fetch_page

SYSTEM: Final = {"type": "system", "id": "repair"}
# What a repair did not put right is not tried again at once, and ever more seldom.
PAUSE: Final = timedelta(seconds=60)
LATELY: Final = timedelta(hours=2)


def note_drifts(session: Session, host_id: str, notes: Iterable[DriftNote]) -> int:
    """How many were kept. Told again, a finding keeps its row and gets its end."""
    kept = 0
    for note in notes:
        environment = session.get(Environment, note.env_id)
        if environment is None or environment.deleted_at is not None or host_id not in environment.hosts:
            continue
        row = session.get(Drift, note.id)
        if row is None:
            row = Drift(
                id=note.id,
                site_id=environment.site_id,
                env_id=environment.id,
                host_id=host_id,
                kind=note.kind,
                seq=note.seq,
                what=note.what,
                found_at=_time(note.found_at),
            )
            session.add(row)
        if row.host_id == host_id and row.env_id == note.env_id:
            row.mended_at = row.mended_at or (_time(note.mended_at) if note.mended_at is not None else None)
            kept += 1
    return kept


def list_drifts(session: Session, env_id: str, page: Page) -> tuple[Sequence[Drift], bool]:
    query = select(Drift).where(Drift.env_id == env_id)
    return fetch_page(session, query, page, time=Drift.created_at, id=Drift.id)


def unmended(session: Session, *, limit: int = 50) -> list[str]:
    """Environments of which a host waits for a repair, with none under way."""
    waiting = select(Drift.env_id).where(col(Drift.mended_at).is_(None)).distinct().limit(limit)
    return [env_id for env_id in session.exec(waiting).all() if _may_repair(session, env_id)]


def accept_repair(session: Session, env_id: str) -> Job | None:
    """A queued repair of what runs on the environment; None where it is not wanted any more, or one is under way."""
    environment = session.get(Environment, env_id, with_for_update=True)
    if environment is None or not _may_repair(session, env_id):
        return None
    site = session.get_one(Site, environment.site_id)
    job = add_action(session, site, environment, "repair", dict(SYSTEM))
    for drift in session.exec(select(Drift).where(Drift.env_id == env_id, col(Drift.mended_at).is_(None))).all():
        drift.job_id = job.id
    return job


def _may_repair(session: Session, env_id: str) -> bool:
    environment = session.get(Environment, env_id)
    if environment is None or environment.status != "active" or environment.active_release_id is None:
        return False
    under_way = select(Rollout.id).where(Rollout.env_id == env_id, col(Rollout.status).in_(("queued", "running")))
    if session.exec(under_way).first() is not None:
        return False
    tried = select(Rollout.finished_at).where(Rollout.env_id == env_id, Rollout.kind == "repair")
    lately = session.exec(tried.where(col(Rollout.finished_at) > utcnow() - LATELY)).all()
    last = max((time for time in lately if time is not None), default=None)
    return last is None or last + PAUSE * 2 ** (len(lately) - 1) < utcnow()


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
