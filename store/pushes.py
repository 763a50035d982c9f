"""Pushes to hosted repositories: accepted with their jobs in one transaction, settled when those have ended.

The branch follows the deploy. Order is `seq`, given under the site's row: what was accepted later is never undone by
what was accepted before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete
from sqlmodel import Session, col, func, select

from headway.errors import HeadwayError
from headway.ids import new_id
from store import environments, joining
from store.branch_routes import IGNORE, LIVE, PREVIEW, STAGING
from store.builds import Given
from store.jobs import cancel_job
from store.models import Environment, Job, Site, utcnow
from store.models_pushes import Push
from store.rollouts import accept_push
from store.sight import Sight

Json = dict[str, Any]
Allow = Callable[[Environment | None], None]


@dataclass(frozen=True)
class BranchPush:
    """A branch and what it is to be (None: gone). `target` is a route's; `env` names an environment instead."""

    branch: str
    old: str | None
    commit: str | None
    target: str
    env: str | None = None
    clean: bool = False


@dataclass(frozen=True)
class Previews:
    """How many a site may have, and how long one lives that nobody pushes to or renews (None: as its branch)."""

    most: int = 20
    idle: timedelta | None = timedelta(hours=336)


@dataclass(frozen=True)
class AcceptedPush:
    """`making` is the job that makes the environment, where it is new; `canceled` are jobs of one that ends."""

    push: Push
    environment: Environment | None = None
    job: Job | None = None
    making: Job | None = None
    attached: bool = False
    canceled: tuple[Job, ...] = ()


def accept(
    session: Session,
    site: Site,
    pushed: BranchPush,
    actor: Json,
    domain: str,
    sight: Sight,
    allow: Allow,
    previews: Previews,
) -> AcceptedPush:
    """The push, its environment and its job. `allow` raises where the caller may not change that environment.

    Raises environment.suspended, environment.not_active, environment.not_found, environment.too_many.
    """
    if pushed.commit is None:
        return _delete(session, site, pushed, actor, allow)
    if pushed.target == IGNORE and pushed.env is None:
        allow(None)
        return AcceptedPush(_add(session, site, pushed, actor, None, None))
    named = environments.target(session, sight, site, pushed.env, param="env") if pushed.env is not None else None
    environment, making = environment_of(session, site, pushed, actor, domain, allow, previews, named)
    joining.lock(session, environment)
    joining.require_open(environment)
    if environment.ephemeral and environment.expires_at is not None:
        environment.expires_at = environments.expiry(environment)
    known = joining.of_commit(session, environment, pushed.branch, pushed.commit, clean=pushed.clean)
    job = known or accept_push(
        session,
        site,
        environment,
        pushed.branch,
        actor,
        clean=pushed.clean,
        trigger="push",
        branch=pushed.branch,
        given=Given(commit=pushed.commit),
    )
    session.flush()
    push = _add(session, site, pushed, actor, environment, job)
    return AcceptedPush(push, environment, job, making, attached=known is not None)


def environment_of(
    session: Session,
    site: Site,
    pushed: BranchPush,
    actor: Json,
    domain: str,
    allow: Allow,
    previews: Previews,
    named: Environment | None = None,
) -> tuple[Environment, Job | None]:
    """Where the push goes (`named`, else by its route), and the job that makes that place where there is none yet."""
    found = named or routed(session, site, pushed)
    if found is None:
        session.refresh(site, with_for_update=True)
        found = routed(session, site, pushed)
    allow(found)
    if found is not None:
        return found, environments.make_again(session, site, found, actor)
    kind = "staging" if pushed.target == STAGING else "preview"
    ephemeral = kind == "preview" and previews.idle is not None
    job = environments.accept_environment(
        session,
        site,
        kind,
        pushed.branch,
        actor,
        domain,
        ephemeral=ephemeral,
        idle=previews.idle,
        most_previews=previews.most,
    )
    session.flush()
    return session.get_one(Environment, job.env_id), job


def routed(session: Session, site: Site, pushed: BranchPush) -> Environment | None:
    """The living environment that the branch's route leads to."""
    living = select(Environment).where(Environment.site_id == site.id, col(Environment.deleted_at).is_(None))
    if pushed.target == LIVE:
        return session.exec(living.where(Environment.id == site.production_env_id)).one()
    if pushed.target == STAGING:
        return session.exec(living.where(Environment.kind == "staging")).first()
    return session.exec(living.where(Environment.kind == PREVIEW, Environment.branch == pushed.branch)).first()


def _delete(session: Session, site: Site, pushed: BranchPush, actor: Json, allow: Allow) -> AcceptedPush:
    """The branch's preview ends with it, and what was on its way there."""
    if pushed.branch == site.default_branch:
        raise HeadwayError("push.default_branch", f"{pushed.branch} is the site's default branch: it stays.")
    environment = routed(session, site, BranchPush(pushed.branch, None, None, PREVIEW))
    allow(environment)
    if environment is None:
        return AcceptedPush(_add(session, site, pushed, actor, None, None))
    session.refresh(environment, with_for_update=True)
    canceled = cancel_open(session, environment)
    job = environments.accept_deletion(session, site, environment, actor)
    session.flush()
    return AcceptedPush(_add(session, site, pushed, actor, environment, job), environment, job, canceled=canceled)


def cancel_open(session: Session, environment: Environment) -> tuple[Job, ...]:
    """What is on its way to an environment that ends."""
    found = session.exec(
        select(Job).where(
            Job.env_id == environment.id,
            Job.type == "deployment.push",
            col(Job.finished_at).is_(None),
            col(Job.committed_at).is_(None),
        )
    ).all()
    return tuple(cancel_job(session, job) for job in found)


def _add(
    session: Session, site: Site, pushed: BranchPush, actor: Json, environment: Environment | None, job: Job | None
) -> Push:
    session.refresh(site, with_for_update=True)
    last = session.exec(select(func.max(Push.seq)).where(Push.site_id == site.id)).one()
    push = Push(
        id=new_id("push"),
        site_id=site.id,
        seq=(last or 0) + 1,
        branch=pushed.branch,
        old_sha=pushed.old,
        new_sha=pushed.commit,
        env_id=environment.id if environment else None,
        job_id=job.id if job else None,
        actor_id=actor.get("id"),
    )
    session.add(push)
    session.flush()
    return push


def in_flight(session: Session, site_id: str, branch: str, actor_id: str) -> tuple[Push | None, bool]:
    """The newest push of a branch of which it is not yet known how it ends; whether anybody but this actor made it."""
    open_pushes = (
        select(Push)
        .join(Job, col(Job.id) == col(Push.job_id))
        .where(
            Push.site_id == site_id,
            Push.branch == branch,
            col(Push.settled_at).is_(None),
            col(Push.new_sha).is_not(None),
            col(Job.finished_at).is_(None) | (Job.status == "succeeded"),
        )
        .order_by(col(Push.seq).desc())
    )
    newest = session.exec(open_pushes).first()
    if newest is None:
        return None, False
    others = open_pushes.where(Push.new_sha == newest.new_sha, col(Push.actor_id) != actor_id)
    return newest, session.exec(others).first() is not None


def mover(session: Session, site_id: str, branch: str, commit: str) -> str | None:
    """The key that moved a branch to this commit last."""
    query = select(Push.actor_id).where(
        Push.site_id == site_id, Push.branch == branch, Push.new_sha == commit, col(Push.moved).is_(True)
    )
    return session.exec(query.order_by(col(Push.seq).desc()).limit(1)).first()


def due(session: Session, *, limit: int = 100) -> Sequence[Push]:
    """Pushes that can be settled, the oldest first."""
    return session.exec(
        select(Push)
        .join(Job, col(Job.id) == col(Push.job_id), isouter=True)
        .where(col(Push.settled_at).is_(None), col(Push.job_id).is_(None) | col(Job.finished_at).is_not(None))
        .order_by(col(Push.site_id), col(Push.seq))
        .limit(limit)
    ).all()


def verdict(session: Session, push: Push) -> bool | None:
    """Whether its branch is to move now; None while its job runs. The site's branches must be locked."""
    job = session.get(Job, push.job_id) if push.job_id is not None else None
    if job is not None and job.finished_at is None:
        return None
    if push.job_id is not None and (job is None or job.status != "succeeded"):
        return False
    later = select(Push.id).where(
        Push.site_id == push.site_id, Push.branch == push.branch, Push.seq > push.seq, col(Push.moved).is_(True)
    )
    return session.exec(later).first() is None


def forget_pushes(session: Session, before: datetime) -> None:
    """Settled pushes that are older; what a branch is stands in the repository."""
    session.execute(delete(Push).where(col(Push.settled_at) < before))


def settle(session: Session, push_id: str, moved: bool) -> None:
    push = session.get_one(Push, push_id, with_for_update=True)
    if push.settled_at is None:
        push.moved, push.settled_at = moved, utcnow()
