"""Drifts: what hosts found and mended, and what is to be mended through the environment's order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlmodel import Session, col, select

from headway.broker import DriftNote
from store.fleet import KIND, may_catch_up
from store.lifecycle import add_action
from store.models import Environment, Job, Rollout, Site, utcnow
from store.models_lifecycle import Drift
from store.paging import Page, fetch_page
from store.rollouts import accept_stop

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
    job = _job(session, site, environment)
    for drift in session.exec(select(Drift).where(Drift.env_id == env_id, col(Drift.mended_at).is_(None))).all():
        drift.job_id = job.id
    return job


def _job(session: Session, site: Site, environment: Environment) -> Job:
    """What runs, once more and in its turn; where nothing does, or something rests, so it is for who comes back."""
    if environment.active_release_id is None:
        return accept_stop(session, site, environment, dict(SYSTEM))
    kind = "suspend" if environment.status == "suspended" else "repair"
    return add_action(session, site, environment, kind, dict(SYSTEM))


def _is_wanted(session: Session, environment: Environment) -> bool:
    """Files and instances are put right of what runs or rests; a host that was away catches up with all there is."""
    others = select(Drift.id).where(Drift.env_id == environment.id, Drift.kind != KIND, col(Drift.mended_at).is_(None))
    if environment.status not in ("active", "suspended"):
        return False
    if environment.active_release_id is not None and session.exec(others).first() is not None:
        return True
    return may_catch_up(session, environment.id)


def _may_repair(session: Session, env_id: str) -> bool:
    environment = session.get(Environment, env_id)
    if environment is None or not _is_wanted(session, environment):
        return False
    under_way = select(Rollout.id).where(Rollout.env_id == env_id, col(Rollout.status).in_(("queued", "running")))
    if session.exec(under_way).first() is not None:
        return False
    lately = _tries(session, environment)
    return not lately or max(lately) + PAUSE * 2 ** (len(lately) - 1) < utcnow()


def _tries(session: Session, environment: Environment) -> list[datetime]:
    """When what this has started lately ended; where a host comes back, only of what did not reach it."""
    lately = select(Rollout).where(
        Rollout.env_id == environment.id,
        col(Rollout.kind).in_(("repair", "suspend", "stop")),
        col(Rollout.finished_at) > utcnow() - LATELY,
    )
    ours = [one for one in session.exec(lately).all() if one.actor == SYSTEM]
    if may_catch_up(session, environment.id):
        ours = [one for one in ours if one.status != "succeeded" or one.hosts_away]
    return [one.finished_at for one in ours if one.finished_at is not None]


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
