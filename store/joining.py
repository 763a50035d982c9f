"""One commit on its way to one environment is one job, whoever asks for it: push, API, webhook or poll.

The identity is environment, commit, and whether the cache may be used. It counts while the job is open and nothing was
accepted behind it: of A, B, A the second A is another job, because order is the order of acceptance. Callers hold the
environment's row, so that of several arrivals at once the second one sees what the first one has accepted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from store.models import Build, Environment, Job, Rollout
from store.rollouts import branch_of

COMMIT: Final = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
# How a commit is known before anybody has fetched it.
TOLD: Final = ("push", "webhook", "poll")


@dataclass(frozen=True)
class Open:
    """The newest request of an environment, as far as it is a build of the site's repository that has not ended."""

    rollout: Rollout
    build: Build
    job: Job

    @property
    def is_of(self) -> str | None:
        """The commit; None while only a name is known."""
        return self.build.commit_sha or (self.build.ref if COMMIT.fullmatch(self.build.ref) else None)

    @property
    def is_fetched(self) -> bool:
        """Whether a builder may have read already what the name leads to."""
        return self.build.attempt > 0 or self.rollout.status != "waiting"


def lock(session: Session, environment: Environment) -> None:
    """Nobody else accepts anything for this environment until the transaction ends."""
    session.refresh(environment, with_for_update=True)


def of_commit(session: Session, environment: Environment, branch: str, commit: str, *, clean: bool) -> Job | None:
    """The job that a branch's commit joins.

    One that was asked for by the branch's name, and that nobody has fetched for yet, becomes this commit's: it would
    find it there. One that was asked for by the commit's id is from now on the branch's, so that a newer push of it
    takes its place.
    """
    found = _newest(session, environment, clean=clean)
    if found is None or found.rollout.branch not in (branch, None):
        return None
    if found.is_of is None and found.rollout.branch == branch and not found.is_fetched:
        found.build.commit_sha = commit
    if found.is_of != commit:
        return None
    found.rollout.branch = branch
    return found.job


def of_ref(session: Session, environment: Environment, ref: str, *, clean: bool) -> Job | None:
    """The job that a request by name or id joins.

    A branch's name means the newest commit that was heard of, while that one is on its way; else what a builder finds.
    """
    found = _newest(session, environment, clean=clean)
    if found is None:
        return None
    if COMMIT.fullmatch(ref):
        return found.job if found.is_of == ref else None
    branch = branch_of(ref)
    if branch is None or found.rollout.branch != branch:
        return None
    told = found.build.trigger in TOLD and found.build.commit_sha is not None
    return found.job if told or not found.is_fetched else None


def _newest(session: Session, environment: Environment, *, clean: bool) -> Open | None:
    rollout = session.exec(
        select(Rollout)
        .where(Rollout.env_id == environment.id, col(Rollout.finished_at).is_(None))
        .order_by(col(Rollout.accept_seq).desc())
        .limit(1)
    ).first()
    if rollout is None or rollout.build_id is None:
        return None
    # The build's row is locked before it is looked at: a builder may be about to take it.
    build = session.get(Build, rollout.build_id, with_for_update=True, populate_existing=True)
    job = session.get(Job, rollout.job_id)
    if build is None or job is None or job.type != "deployment.push" or job.cancel_requested_at is not None:
        return None
    if build.source is not None or build.overrides is not None or (clean and not build.clean):
        return None
    return Open(rollout, build, job)


def last_tried(session: Session, environment: Environment, branch: str) -> tuple[Rollout, Build] | None:
    """What was built for a branch last, however it ended."""
    query = (
        select(Rollout, Build)
        .join(Build, col(Build.id) == col(Rollout.build_id))
        .where(Rollout.env_id == environment.id, Rollout.branch == branch, Rollout.kind == "deploy")
        .order_by(col(Rollout.accept_seq).desc())
        .limit(1)
    )
    return session.exec(query).first()


def require_open(environment: Environment) -> None:
    """Raises environment.not_active and environment.suspended; one that is still being made takes work already."""
    if environment.status == "deleting":
        message = f"The environment {environment.slug} is being deleted: push again when it is gone."
        raise HeadwayError("environment.not_active", message)
    if environment.status == "suspended":
        raise HeadwayError("environment.suspended", f"The environment {environment.slug} is suspended.")
    if environment.status not in ("active", "provisioning"):
        raise HeadwayError("environment.not_active", f"The environment {environment.slug} is {environment.status}.")
