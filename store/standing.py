"""How a site stands: pending, building (and rolling), running, stopped or failed. Made of rows, so that it cannot

contradict them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, exists, func, not_, or_
from sqlmodel import Session, col, select

from store.hostnames import hostnames_of
from store.models import Artifact, Build, Environment, Release, Rollout, Site

STATES: Final = ("pending", "building", "running", "stopped", "failed")


@dataclass(frozen=True)
class Standing:
    """`build_id` is of what runs on production, `latest_build_id` of what was asked for last."""

    state: str
    hostname: str | None
    build_id: str | None
    artifact: Artifact | None
    latest_build_id: str | None
    promoted_at: Any = None


def standings(session: Session, sites: Sequence[Site]) -> dict[str, Standing]:
    """The standing of each site, with a fixed number of queries."""
    ids = [site.id for site in sites]
    env_ids = [site.production_env_id for site in sites if site.production_env_id]
    names = hostnames_of(session, env_ids)
    current = {row.env_id: row for row in session.exec(_current(env_ids)).all()}
    rollouts = _by_id(session, Rollout, [row.rollout_id for row in current.values()])
    artifacts = _by_id(session, Artifact, [row.artifact_id for row in current.values()])
    latest = _pairs(session, select(Build.site_id, func.max(Build.id)).where(_of(ids)).group_by(col(Build.site_id)))
    building = _ids(session, select(Build.site_id).where(_of(ids), col(Build.finished_at).is_(None)))
    building |= _ids(session, select(Build.site_id).where(_of(ids), _rolling()))
    made = _ids(session, select(Build.site_id).where(_of(ids), _made()))
    ran = _ids(session, select(Release.env_id).where(col(Release.env_id).in_(env_ids)))
    found = {}
    for site in sites:
        env_id = site.production_env_id or ""
        release = current.get(env_id)
        rollout = rollouts.get(release.rollout_id) if release else None
        artifact = artifacts.get(release.artifact_id) if release else None
        found[site.id] = Standing(
            state=_state(release is not None, site.id in building, env_id in ran, site.id in made, site.id in latest),
            hostname=next((name.name for name in names.get(env_id, ())), None),
            build_id=(rollout.build_id if rollout else None) or (artifact.build_id if artifact else None),
            artifact=artifact,
            latest_build_id=latest.get(site.id),
            promoted_at=release.deployed_at if release else None,
        )
    return found


def _state(running: bool, building: bool, ran: bool, made: bool, tried: bool) -> str:
    if running:
        return "running"
    if building:
        return "building"
    if ran:
        return "stopped"
    return "failed" if tried and not made else "pending"


def in_state(state: str) -> ColumnElement[bool]:
    """The same as a condition on a query of sites."""
    running = exists().where(col(Release.env_id) == col(Site.production_env_id), col(Release.current))
    ran = exists().where(col(Release.env_id) == col(Site.production_env_id))
    unfinished = or_(col(Build.finished_at).is_(None), _rolling())
    building = exists().where(col(Build.site_id) == col(Site.id), unfinished)
    made = exists().where(col(Build.site_id) == col(Site.id), _made())
    tried = exists().where(col(Build.site_id) == col(Site.id))
    idle = and_(not_(running), not_(building))
    return {
        "running": running,
        "building": and_(not_(running), building),
        "stopped": and_(idle, ran),
        "failed": and_(idle, not_(ran), tried, not_(made)),
        "pending": and_(idle, not_(ran), not_(and_(tried, not_(made)))),
    }[state]


def _current(env_ids: Sequence[str]) -> Any:
    return select(Release).where(col(Release.env_id).in_(env_ids), col(Release.current))


def _rolling() -> ColumnElement[bool]:
    """A build whose own rollout has not ended."""
    return exists().where(*_own(), col(Rollout.finished_at).is_(None))


def _made() -> ColumnElement[bool]:
    """A build that succeeded, and so did its own rollout if it had one, or that was not its fault."""
    failed = exists().where(*_own(), col(Rollout.status) == "failed")
    return and_(col(Build.status) == "succeeded", not_(failed))


def _own() -> tuple[ColumnElement[bool], ...]:
    return col(Rollout.job_id) == col(Build.job_id), col(Rollout.build_id) == col(Build.id)


def _of(site_ids: Sequence[str]) -> ColumnElement[bool]:
    return col(Build.site_id).in_(site_ids)


def _by_id(session: Session, table: Any, ids: Sequence[str]) -> dict[str, Any]:
    return {row.id: row for row in session.exec(select(table).where(col(table.id).in_(ids))).all()} if ids else {}


def _pairs(session: Session, query: Any) -> dict[str, str]:
    return {row[0]: row[1] for row in session.execute(query).all()}


def _ids(session: Session, query: Any) -> set[str]:
    return set(session.exec(query.distinct()).all())


__all__ = ["STATES", "Environment", "Standing", "in_state", "standings"]
