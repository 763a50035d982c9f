"""Releases: the record of what ran, read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import bindparam
from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from store.models import Release, Rollout
from store.paging import Page, fetch_page

# On the path of every rollback: built once.
_CURRENT: Final = select(Release).where(Release.env_id == bindparam("env_id"), col(Release.current)).limit(1)
_BEFORE: Final = (
    select(Release)
    .where(Release.env_id == bindparam("env_id"), col(Release.seq) < bindparam("seq"))
    .order_by(col(Release.seq).desc())
    .limit(1)
)
_KIND: Final = select(Rollout.kind).where(Rollout.id == bindparam("id"))


def list_releases(session: Session, env_id: str, page: Page) -> tuple[Sequence[Release], bool]:
    query = select(Release).where(Release.env_id == env_id)
    return fetch_page(session, query, page, time=Release.deployed_at, id=Release.id)


def release_of(session: Session, env_id: str, release_id: str, *, param: str = "release_id") -> Release:
    found = session.get(Release, release_id)
    if found is None or found.env_id != env_id:
        raise HeadwayError("release.not_found", f"There is no release {release_id}.", param=param)
    return found


def sequences_of(session: Session, release: Release) -> frozenset[int]:
    """The rollouts whose instances may serve a release: its own, and those of earlier ones with the same code and
    configuration, whose instances it may have taken over warm."""
    query = select(Release.seq).where(
        Release.env_id == release.env_id,
        Release.artifact_id == release.artifact_id,
        Release.config_version == release.config_version,
        col(Release.seq) <= release.seq,
    )
    return frozenset(session.exec(query).all())


def releases_by_sequence(session: Session, env_id: str, seqs: Iterable[int]) -> dict[int, str]:
    """The releases that became of these rollouts of an environment, by their number."""
    query = select(Release.seq, Release.id).where(Release.env_id == env_id, col(Release.seq).in_(sorted(set(seqs))))
    return dict(session.exec(query).all())


def replaced_in(session: Session, releases: Sequence[Release]) -> dict[str, list[dict[str, Any]] | None]:
    """What was replaced in the configurations of these releases, by rollout (see `Rollout.config_replaced`)."""
    wanted = [release.rollout_id for release in releases]
    query = select(Rollout.id, Rollout.config_replaced).where(col(Rollout.id).in_(wanted))
    return dict.fromkeys(wanted) | dict(session.exec(query).all())


def current_release(session: Session, env_id: str) -> Release | None:
    return session.exec(_CURRENT, params={"env_id": env_id}).first()


def is_watched(rollout: Rollout) -> bool:
    """In its bake: live, and no release yet."""
    return rollout.status == "running" and rollout.stage == "bake"


def release_before(session: Session, rollout: Rollout) -> Release:
    """The release that preceded this deployment's: of one that is still watched the current one.

    Raises deployment.in_progress while it may still become one, and release.no_previous.
    """
    if is_watched(rollout) and (current := current_release(session, rollout.env_id)) is not None:
        return current
    own = session.get(Release, rollout.release_id) if rollout.release_id else None
    if own is None and rollout.finished_at is None:
        message = f"The deployment {rollout.id} is {rollout.status}: it is no release yet."
        raise HeadwayError("deployment.in_progress", message)
    if own is None:
        raise HeadwayError("release.no_previous", f"The deployment {rollout.id} never became a release.")
    while True:
        found = session.exec(_BEFORE, params={"env_id": rollout.env_id, "seq": own.seq}).first()
        if found is None:
            raise HeadwayError("release.no_previous", "No release preceded that deployment.")
        if not _same_again(session, own, found):
            return found
        own = found


def _same_again(session: Session, own: Release, before: Release) -> bool:
    """Whether a release is the one before it, restarted, scaled, resumed or repaired: nothing to go back over."""
    kind = session.exec(_KIND, params={"id": own.rollout_id}).one()
    same = (own.artifact_id, own.config_version) == (before.artifact_id, before.config_version)
    return same and kind not in ("deploy", "promote", "rollback")
