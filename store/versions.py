"""Versions: a site's builds, each with the rollout of the same publish, its artifact, and when it was last live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, and_, exists, func, not_
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from headway.errors import HeadwayError
from store.models import Artifact, Build, Environment, Release, Rollout

STATES = ("created", "building", "ready", "failed", "archived")
# A rollout that ended so has shown that its version cannot serve.
UNFIT: Final = ("roll.health_failed", "roll.start_failed", "roll.release_command_failed")


@dataclass(frozen=True)
class Version:
    build: Build
    rollout: Rollout | None
    artifact: Artifact | None
    promoted_at: datetime | None


def builds_of_site(site_id: str) -> SelectOfScalar[Build]:
    return select(Build).where(Build.site_id == site_id)


def in_state(state: str) -> ColumnElement[bool]:
    """What `api/miosa/rows.py` says of a version, as a condition on a query of builds."""
    own = (col(Rollout.job_id) == col(Build.job_id), col(Rollout.build_id) == col(Build.id))
    rolling = exists().where(*own, col(Rollout.finished_at).is_(None))
    unhealthy = exists().where(*own, col(Rollout.error)["code"].as_string().in_(UNFIT))
    collected = exists().where(col(Artifact.id) == col(Build.artifact_id), col(Artifact.collected_at).is_not(None))
    made = and_(col(Build.status) == "succeeded", col(Build.artifact_id).is_not(None))
    kept = and_(made, not_(collected))
    return {
        "created": col(Build.status) == "queued",
        "building": (col(Build.status) == "running") | and_(kept, rolling),
        "ready": and_(kept, not_(rolling), not_(unhealthy)),
        "archived": and_(made, collected),
        "failed": col(Build.status).in_(("failed", "canceled", "superseded")) | and_(kept, not_(rolling), unhealthy),
    }[state]


def versions(session: Session, builds: Sequence[Build]) -> list[Version]:
    """What belongs to each of these builds, with three queries."""
    ids, jobs = [build.id for build in builds], [build.job_id for build in builds]
    found = session.exec(select(Rollout).where(col(Rollout.job_id).in_(jobs))).all()
    rollouts = {row.job_id: row for row in found}
    wanted = [build.artifact_id for build in builds if build.artifact_id]
    artifacts = {row.id: row for row in session.exec(select(Artifact).where(col(Artifact.id).in_(wanted))).all()}
    live = (
        select(Rollout.build_id, func.max(Release.deployed_at))
        .join(Release, col(Release.rollout_id) == col(Rollout.id))
        .where(col(Rollout.build_id).in_(ids))
        .group_by(col(Rollout.build_id))
    )
    promoted = {row[0]: row[1] for row in session.execute(live).all()}
    return [
        Version(
            build, rollouts.get(build.job_id), artifacts.get(build.artifact_id or ""), _moment(promoted.get(build.id))
        )
        for build in builds
    ]


def _moment(found: object) -> datetime | None:
    """SQLite gives an aggregate of times as text."""
    if isinstance(found, str):
        return datetime.fromisoformat(found)
    return found if isinstance(found, datetime) else None


def version(session: Session, site_id: str, build_id: str) -> Version:
    """Raises build.not_found."""
    build = session.exec(builds_of_site(site_id).where(Build.id == build_id)).first()
    if build is None:
        raise HeadwayError("build.not_found", f"There is no version {build_id}.", param="version_id")
    return versions(session, [build])[0]


def live_build(session: Session, env_id: str) -> tuple[Release, str | None] | None:
    """The current release of an environment, and the build that its rollout named."""
    query = (
        select(Release, Rollout.build_id)
        .join(Rollout, col(Rollout.id) == col(Release.rollout_id))
        .where(Release.env_id == env_id, col(Release.current))
    )
    found = session.exec(query).first()
    return (found[0], found[1]) if found is not None else None


def earlier_build(session: Session, env_id: str) -> tuple[Release, str | None]:
    """What ran before what runs, and was something else; what ran last where nothing runs.

    Raises release.none and release.no_previous.
    """
    now = live_build(session, env_id)
    query = (
        select(Release, Rollout.build_id)
        .join(Rollout, col(Rollout.id) == col(Release.rollout_id))
        .where(Release.env_id == env_id)
        .order_by(col(Release.seq).desc())
    )
    if now is not None:
        query = query.where(col(Release.seq) < now[0].seq, col(Rollout.build_id) != (now[1] or ""))
    found = session.exec(query).first()
    if found is not None:
        return found[0], found[1]
    if now is None:
        raise HeadwayError("release.none", "Nothing runs there yet.")
    raise HeadwayError("release.no_previous", "No other version ran there before.")


def last_open(session: Session, environment: Environment) -> Rollout | None:
    """The newest rollout of an environment that has not ended."""
    query = select(Rollout).where(Rollout.env_id == environment.id, col(Rollout.finished_at).is_(None))
    return session.exec(query.order_by(col(Rollout.accept_seq).desc())).first()
