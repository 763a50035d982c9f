"""Whose turn it is to build: at most so many builds at once per site and per team, in the order of acceptance."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import func
from sqlmodel import Session, col, select

from store.models import Build, Environment, Job, Rollout, Site, utcnow
from store.outcomes import end_build, end_rollout

# Longer than any build may take and wait: what is older is nobody's to wait for.
STALE: Final = timedelta(hours=9)


@dataclass(frozen=True)
class Shares:
    """How many builds of one site, and of one team, may be under way at once. 0: as many as there are."""

    site: int = 0
    team: int = 0


def must_wait(session: Session, build: Build, shares: Shares) -> bool:
    """Whether enough builds that were accepted before this one are under way, or are to go first.

    Of another site of the team no more count than may be under way at once: what waits for its own site's turn keeps
    nobody else. Never for a build that has begun, or that somebody wants to end.
    """
    if not shares.site and not shares.team:
        return False
    job = session.get(Job, build.job_id)
    over = job is None or job.finished_at is not None or job.cancel_requested_at is not None
    if build.status != "queued" or build.finished_at is not None or over:
        return False
    team = select(Site.team_id).where(Site.id == build.site_id).scalar_subquery()
    before = (
        select(Build.site_id, func.count())
        .join(Site, col(Site.id) == col(Build.site_id))
        .where(col(Build.finished_at).is_(None), col(Build.id) < build.id, col(Build.created_at) > utcnow() - STALE)
        .where(Site.team_id == team)
        .group_by(col(Build.site_id))
    )
    counts = dict(session.exec(before).all())
    if shares.site and counts.get(build.site_id, 0) >= shares.site:
        return True
    ahead = sum(min(count, shares.site) if shares.site else count for count in counts.values())
    return bool(shares.team) and ahead >= shares.team


def supersede(session: Session, build: Build) -> bool:
    """End a push of a branch whose build waits, and of which a newer one has been accepted; whether it was.

    What was frozen from a sandbox is a version of its own, which somebody may want to go back to: it is built.
    """
    if build.source is not None:
        return False
    rollout = session.exec(
        select(Rollout).where(Rollout.build_id == build.id, Rollout.job_id == build.job_id, Rollout.status == "waiting")
    ).first()
    if rollout is None or rollout.branch is None:
        return False
    session.get(Environment, rollout.env_id, with_for_update=True)
    session.refresh(rollout, with_for_update=True)
    if rollout.status != "waiting":
        return False  # it was ended while this waited for the environment
    newer = session.exec(
        select(Rollout).where(
            Rollout.env_id == rollout.env_id,
            Rollout.branch == rollout.branch,
            col(Rollout.accept_seq) > rollout.accept_seq,
            col(Rollout.status).in_(("waiting", "queued", "running", "succeeded")),
        )
    ).first()
    if newer is None:
        return False
    message = f"Deployment {newer.id} was accepted later, before this one's build had begun."
    error: dict[str, Any] = {"code": "job.superseded", "message": message}
    end_build(session, build, "superseded", error)
    end_rollout(session, rollout, "superseded", error, superseded_by=newer.job_id)
    return True


def outdated(session: Session, build_id: str) -> bool:
    """`supersede` for a build that has waited for a builder, and that none has begun yet."""
    build = session.get(Build, build_id)
    waits = build is not None and build.attempt == 0 and build.finished_at is None
    return build is not None and waits and supersede(session, build)
