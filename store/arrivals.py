"""What is heard of a remote repository: a branch has another commit, or is gone. Webhooks and polls end here alike.

A commit that is live, or was tried for its branch last, is not tried again by itself: a push or the API does that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlmodel import Session

from headway.errors import HeadwayError
from store import environments, joining
from store.branch_routes import IGNORE, PREVIEW, routes_heard, target_of
from store.builds import Given
from store.models import Environment, Job, Site, utcnow
from store.models_arrivals import RemoteBranch
from store.pushes import BranchPush, Previews, cancel_open, environment_of, routed
from store.rollouts import accept_push
from store.slugs import is_branch_name

Json = dict[str, Any]
ACCEPTED, IGNORED, REFUSED, KNOWN = "accepted", "ignored", "refused", "known"
_ENDED: Final = {
    "succeeded": "{job} has deployed it already",
    "failed": "{job} has tried it already, and failed: push it again, or deploy it by hand",
    "canceled": "{job} has tried it already, and was canceled: deploy it by hand",
}


@dataclass(frozen=True)
class Arrival:
    """`commit` None: the branch is gone. `via`: webhook | poll."""

    branch: str
    commit: str | None
    via: str
    actor: Json


@dataclass(frozen=True)
class Judged:
    """`job` deploys it, or ends the branch's preview; `starts` are jobs made now, `canceled` those of what ends."""

    verdict: str
    reason: str | None = None
    job: Job | None = None
    starts: tuple[Job, ...] = ()
    canceled: tuple[Job, ...] = ()


def accept(session: Session, site: Site, arrival: Arrival, domain: str, previews: Previews) -> Judged:
    """The verdict, and the work that follows from it. What was refused may be heard of again."""
    try:
        judged = _judge(session, site, arrival, domain, previews)
    except HeadwayError as error:
        judged = Judged(REFUSED, error.message)
    session.flush()
    note(session, site, arrival, judged)
    return judged


def note(session: Session, site: Site, arrival: Arrival, judged: Judged) -> None:
    """What the branch is now. A name that is none is not kept: its call is. What was refused is still news."""
    if not _is_name(arrival.branch):
        return
    session.refresh(site, with_for_update=True)
    row = session.get(RemoteBranch, (site.id, arrival.branch), populate_existing=True)
    if row is None:
        row = RemoteBranch(site_id=site.id, branch=arrival.branch, via=arrival.via, verdict=judged.verdict)
        session.add(row)
    if judged.verdict == IGNORED and judged.job is not None and row.commit_sha == arrival.commit:
        return  # heard of once more: what was done about it stands
    if judged.verdict != REFUSED:
        row.commit_sha = arrival.commit
    row.via, row.verdict, row.reason, row.heard_at = arrival.via, judged.verdict, judged.reason, utcnow()
    row.job_id = judged.job.id if judged.job is not None else None


def _judge(session: Session, site: Site, arrival: Arrival, domain: str, previews: Previews) -> Judged:
    branch = arrival.branch
    if site.deleted_at is not None or site.status not in ("active", "provisioning"):
        return Judged(REFUSED, "the site is gone" if site.deleted_at is not None else f"the site is {site.status}")
    if not _is_name(branch):
        return Judged(REFUSED, "that is no name of a branch")
    if not site.auto_deploy:
        return Judged(IGNORED, "the site does not deploy by itself")
    if arrival.commit is None:
        return _end(session, site, arrival)
    target = target_of(routes_heard(session, site, branch), branch)
    if target == IGNORE:
        return Judged(IGNORED, f"the branch routes deploy nothing of {branch}")
    return _deploy(session, site, arrival, BranchPush(branch, None, arrival.commit, target), domain, previews)


def _deploy(
    session: Session, site: Site, arrival: Arrival, pushed: BranchPush, domain: str, previews: Previews
) -> Judged:
    assert arrival.commit is not None  # noqa: S101
    heard = session.get(RemoteBranch, (site.id, arrival.branch))
    known = heard is not None and heard.commit_sha == arrival.commit and heard.verdict == ACCEPTED
    if known and routed(session, site, pushed) is None:
        return Judged(IGNORED, "its preview has ended since")
    environment, making = environment_of(session, site, pushed, arrival.actor, domain, _anybody, previews)
    joining.lock(session, environment)
    joining.require_open(environment)
    if (job := joining.of_commit(session, environment, arrival.branch, arrival.commit, clean=False)) is not None:
        return Judged(ACCEPTED, None, job)
    if (tried := _tried(session, environment, arrival)) is not None:
        return tried
    if environment.ephemeral and environment.expires_at is not None:
        environment.expires_at = environments.expiry(environment)
    given = Given(commit=arrival.commit)
    job = accept_push(
        session,
        site,
        environment,
        arrival.branch,
        arrival.actor,
        clean=False,
        trigger=arrival.via,
        branch=arrival.branch,
        given=given,
    )
    return Judged(ACCEPTED, None, job, tuple(one for one in (making, job) if one is not None))


def _tried(session: Session, environment: Environment, arrival: Arrival) -> Judged | None:
    last = joining.last_tried(session, environment, arrival.branch)
    if last is None or last[1].commit_sha != arrival.commit:
        return None
    job = session.get(Job, last[0].job_id)
    said = _ENDED.get(last[0].status, "{job} is about it already")
    return Judged(IGNORED, said.format(job=last[0].job_id), job)


def _end(session: Session, site: Site, arrival: Arrival) -> Judged:
    """A preview ends with its branch, and nothing else does."""
    if arrival.branch == site.default_branch:
        return Judged(IGNORED, "what the default branch has deployed stays")
    environment = routed(session, site, BranchPush(arrival.branch, None, None, PREVIEW))
    if environment is None:
        return Judged(IGNORED, "the branch is gone, and has no preview")
    joining.lock(session, environment)
    canceled = cancel_open(session, environment)
    job = environments.accept_deletion(session, site, environment, arrival.actor)
    return Judged(ACCEPTED, f"the branch is gone: its preview {environment.slug} ends", job, (job,), canceled)


def _is_name(branch: str) -> bool:
    return is_branch_name(branch) and branch.isprintable()


def _anybody(_: Environment | None) -> None:
    """Whoever may push to the remote repository decides."""
