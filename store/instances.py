"""Instances of apps, as the rows know them: what should run where, and what a host has said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, select

from store.artifacts import runs_of
from store.models import Artifact, Environment, Release, Rollout
from store.models_lifecycle import Drift

Json = dict[str, Any]


@dataclass(frozen=True)
class Instance:
    """`name` is `web.0`: the process and its number. `state`: healthy | unhealthy | stopped."""

    environment: Environment
    release: Release
    host_id: str
    name: str
    state: str
    run: Json


def instances_of(session: Session, site_id: str) -> list[Instance]:
    """Of every environment of a site that runs an app, one by one; files need none."""
    query = (
        select(Environment, Release, Artifact, Rollout)
        .join(Release, (col(Release.env_id) == col(Environment.id)) & col(Release.current))
        .join(Artifact, col(Artifact.id) == col(Release.artifact_id))
        .join(Rollout, col(Rollout.id) == col(Release.rollout_id))
        .where(Environment.site_id == site_id, col(Environment.deleted_at).is_(None), Artifact.kind == "dynamic")
    )
    rows = session.exec(query.order_by(col(Environment.created_at))).all()
    runs = runs_of(session, [row[2] for row in rows])
    drifted = _drifted(session, [row[0].id for row in rows])
    found = []
    for environment, release, artifact, rollout in rows:
        run = runs.get(artifact.id) or {}
        names = [f"web.{number}" for number in range(rollout.instances or run.get("instances", 1))]
        names += [f"{process}.0" for process in run.get("processes", {})]
        for host_id in environment.hosts:
            bad = (environment.id, host_id) in drifted
            state = "stopped" if environment.status == "suspended" else "unhealthy" if bad else "healthy"
            found += [Instance(environment, release, host_id, name, state, run) for name in names]
    return found


def _drifted(session: Session, env_ids: Sequence[str]) -> set[tuple[str, str]]:
    """Environments and hosts of which an instance was found otherwise than it was left, and is not mended yet."""
    query = select(Drift.env_id, Drift.host_id).where(
        col(Drift.env_id).in_(env_ids), Drift.kind == "instance", col(Drift.mended_at).is_(None)
    )
    return {(env_id, host_id) for env_id, host_id in session.exec(query).all()}
