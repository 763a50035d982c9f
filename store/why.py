"""Why something is live: the rows that lead to a release, in one read."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from store.models import Artifact, Build, Release, Rollout, Site
from store.models_ledger import LedgerEntry
from store.models_policy import Decision
from store.policies import decision_of


@dataclass(frozen=True)
class Why:
    """`signed` and `recorded` are the entries of the artifact and of the release; None while there is none."""

    site: Site
    build: Build
    artifact: Artifact
    rollout: Rollout
    release: Release
    signed: LedgerEntry | None
    recorded: LedgerEntry | None
    decision: Decision | None = None


def why(session: Session, site: Site, env_id: str, release: Release | None) -> Why:
    """The chain behind a release of this environment. Raises release.none where nothing runs."""
    if release is None:
        raise HeadwayError("release.none", f"Nothing runs on {env_id} yet.")
    query = (
        select(Build, Artifact, Rollout)
        .join(Artifact, col(Artifact.build_id) == Build.id)
        .join(Rollout, col(Rollout.artifact_id) == Artifact.id)
        .where(Rollout.id == release.rollout_id)
    )
    build, artifact, rollout = session.exec(query).one()
    signed, recorded = (_entry(session, index) for index in (artifact.log_index, release.log_index))
    return Why(site, build, artifact, rollout, release, signed, recorded, decision_of(session, rollout.id))


def _entry(session: Session, index: int | None) -> LedgerEntry | None:
    return session.get(LedgerEntry, index) if index is not None else None
