"""Reports to forges: noted in the transaction of the change, sent from there. The rows are the outbox.

A report is what a forge should show, not what happened: a later state replaces one that has not been sent, so that
nothing arrives out of order, and a forge that was away learns how things stand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import bindparam, delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, SQLModel, col, select

from headway.errors import HeadwayError
from headway.ids import new_id
from store.deliveries import SILENCE, Pace, Try
from store.events import stamp
from store.models import Artifact, Build, Environment, Job, Rollout, Site, utcnow
from store.models_reports import ForgeLink, ForgeReport
from store.paging import Page, fetch_page

Json = dict[str, Any]
STATUS, COMMENT, CHECK = "status", "comment", "check"
BATCH: Final = 100
# As webhooks of the managed dialect: at 10 s, 1 and 5 and 30 minutes, 2 and 6 and 24 hours.
RETRIES: Final = 7
# A forge that asks for more patience is asked again sooner: its word may be a mistake.
LONGEST_WAIT: Final = 21_600.0
_LINKS: Final = "headway_forge_links"
_OF_SITE: Final = select(ForgeLink).where(ForgeLink.site_id == bindparam("site_id"))
_BUILDS: Final = "build.run"
_DEPLOYS: Final = ("deployment.push", "deployment.roll", "deployment.promote", "deployment.rollback")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_STATES: Final = {"queued": "pending", "running": "pending", "succeeded": "success"}
_TABLE: Final = SQLModel.metadata.tables["forge_report"]
_INSERT: Final = {
    "sqlite": sqlite.insert(_TABLE).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(_TABLE).on_conflict_do_nothing(),
}


@dataclass(frozen=True)
class Sending:
    """One try. `again`: this revision was on its way before, and nobody knows whether it arrived."""

    report: ForgeReport
    link: ForgeLink
    again: bool

    @property
    def number(self) -> int:
        return len(self.report.tries) + 1


@dataclass(frozen=True)
class Outcome:
    """How a try went. `final`: another one cannot go better; `absent`: there is nothing to comment on yet."""

    made: Try
    wait: float | None = None
    final: bool = False
    absent: bool = False


# noted


def note_job(session: Session, job: Job) -> None:
    """What the site's forge should show of this job as it is now. Nothing, where the site reports to none."""
    link = _link(session, job.site_id)
    if link is None:
        return
    if job.type == "environment.delete":
        _note_end(session, link, job)
    elif job.type == _BUILDS or job.type in _DEPLOYS:
        _note(session, link, job)


def _link(session: Session, site_id: str | None) -> ForgeLink | None:
    """Asked once in a transaction."""
    if site_id is None:
        return None
    kept: dict[str, ForgeLink | None] = session.info.setdefault(_LINKS, {})
    if site_id not in kept:
        kept[site_id] = session.exec(_OF_SITE, params={"site_id": site_id}).one_or_none()
    return kept[site_id]


def _note(session: Session, link: ForgeLink, job: Job) -> None:
    commit = _commit_of(session, job)
    environment, site = session.get(Environment, job.env_id), session.get(Site, job.site_id)
    if commit is None or environment is None or site is None:
        return
    error, result = job.error or {}, job.result or {}
    facts = {
        "state": _STATES.get(job.status, "canceled" if job.status == "canceled" else "failure"),
        "commit": commit,
        "job_id": job.id,
        "site": site.slug,
        "environment": environment.slug,
        "branch": environment.branch,
        "url": result.get("url"),
        "code": error.get("code"),
        "built": job.type == _BUILDS,
    }
    if link.statuses:
        context = f"headway/{site.slug}/{environment.slug}" + (" (build)" if facts["built"] else "")
        _want(session, link, STATUS, f"{commit} {context}", {**facts, "context": context}, job)
    if link.comments and environment.kind == "preview" and not facts["built"]:
        _want(session, link, COMMENT, environment.branch, facts, job)


def _note_end(session: Session, link: ForgeLink, job: Job) -> None:
    """The preview is gone: so says its comment, where there is one."""
    environment = session.get(Environment, job.env_id)
    if environment is None or job.status != "succeeded":
        return
    known = session.exec(_of(link, COMMENT, environment.branch)).one_or_none()
    if known is not None and known.env_id == environment.id:
        _want(session, link, COMMENT, known.subject, {**known.wanted, "state": "ended", "url": None}, job)


def _commit_of(session: Session, job: Job) -> str | None:
    """The commit that a job is about, where that is known and is one of the site's repository."""
    if job.resource_type == "build":
        build = session.get(Build, job.resource_id)
    else:
        rollout = session.get(Rollout, job.resource_id)
        build = session.get(Build, rollout.build_id) if rollout and rollout.build_id else None
        if build is None and rollout is not None and rollout.artifact_id:
            build = session.get(Build, session.get_one(Artifact, rollout.artifact_id).build_id)
    if build is None or build.source is not None:
        return None
    known = build.commit_sha or build.ref
    return known if _COMMIT.fullmatch(known) else None


def _want(session: Session, link: ForgeLink, kind: str, subject: str, facts: Json, job: Job | None) -> None:
    """The subject should show these facts from now on, unless a later job has had its say."""
    now = utcnow()
    first = {"id": new_id("rep"), "link_id": link.id, "site_id": link.site_id, "kind": kind, "subject": subject}
    empty: Json = {"wanted": {}, "rev": 0, "begun_rev": 0, "sent_rev": 0, "state": "pending", "tries": []}
    row = {**first, **empty, "comments": {}, "due_at": now, "created_at": now, "ended_at": now}
    session.connection().execute(_INSERT[session.get_bind().dialect.name], row)
    report = session.exec(_of(link, kind, subject).with_for_update()).one()
    if job is not None:
        if report.job_at is not None and (report.job_at, report.job_id or "") > (job.created_at, job.id):
            return
        report.job_id, report.job_at, report.env_id = job.id, job.created_at, job.env_id
    if report.wanted != facts or job is None:
        report.wanted, report.rev = facts, report.rev + 1
        _begin(report, now)
    session.add(report)


def _of(link: ForgeLink, kind: str, subject: str) -> Any:
    return select(ForgeReport).where(
        ForgeReport.link_id == link.id, ForgeReport.kind == kind, ForgeReport.subject == subject
    )


def _begin(report: ForgeReport, now: datetime) -> None:
    report.state, report.tries, report.ended_at, report.due_at = "pending", [], None, now


def look_again(session: Session, site_id: str, branch: str) -> bool:
    """A pull request from the branch was opened: its comment is due now. Whether there is anything to say."""
    link = _link(session, site_id)
    if link is None or not link.comments:
        return False
    report = session.exec(_of(link, COMMENT, branch).with_for_update()).one_or_none()
    if report is None or report.wanted.get("state") == "ended":
        return False
    _begin(report, utcnow())
    session.add(report)
    return True


def want_check(session: Session, link: ForgeLink) -> None:
    """The forge is asked whether the token may see the repository."""
    _want(session, link, CHECK, "", {}, None)


# sent


def any_due(session: Session, now: datetime) -> bool:
    query = select(ForgeReport.id).where(col(ForgeReport.ended_at).is_(None), col(ForgeReport.due_at) <= now)
    return session.exec(query.limit(1)).first() is not None


def take_due(session: Session, now: datetime) -> list[ForgeReport]:
    """Reports that nobody looks after, oldest first: whoever asks starts their runs."""
    query = select(ForgeReport).where(col(ForgeReport.ended_at).is_(None), col(ForgeReport.due_at) <= now)
    found = query.order_by(col(ForgeReport.due_at)).limit(BATCH).with_for_update(skip_locked=True)
    rows = list(session.exec(found).all())
    for row in rows:
        row.due_at = now + SILENCE
        session.add(row)
    return rows


def put_back(session: Session, report_id: str, now: datetime) -> None:
    """Its run could not be started: it is due again in a moment."""
    row = session.get(ForgeReport, report_id)
    if row is not None and row.ended_at is None:
        row.due_at = now + timedelta(seconds=2)


def to_send(session: Session, report_id: str) -> Sending | None:
    """None: it shows what it should, was given up, or is gone with its site's link."""
    report = session.get(ForgeReport, report_id, with_for_update=True)
    if report is None or report.ended_at is not None:
        return None
    again, report.begun_rev = report.begun_rev == report.rev, report.rev
    return Sending(report, session.get_one(ForgeLink, report.link_id), again)


def keep_comment(session: Session, report_id: str, pull: str, comment: str) -> str:
    """The comment that counts from now on: this one, or the one that another run has written before."""
    report = session.get(ForgeReport, report_id, with_for_update=True)
    if report is None:
        return comment
    known = report.comments.get(pull)
    if known is None:
        report.comments = {**report.comments, pull: comment}
    return str(known or comment)


def forget_comment(session: Session, report_id: str, pull: str, comment: str) -> None:
    """Somebody has deleted it."""
    report = session.get(ForgeReport, report_id, with_for_update=True)
    if report is not None and report.comments.get(pull) == comment:
        report.comments = {name: one for name, one in report.comments.items() if name != pull}


def keep_outcome(session: Session, report_id: str, rev: int, outcome: Outcome, pace: Pace) -> float | None:
    """What became of a try. How many seconds until the next, or None: there is none."""
    # The link's row before the report's, as whoever changes the link.
    of = select(ForgeReport.link_id).where(ForgeReport.id == report_id)
    link = session.exec(select(ForgeLink).where(col(ForgeLink.id).in_(of)).with_for_update()).one_or_none()
    report = session.get(ForgeReport, report_id, with_for_update=True)
    if link is None or report is None or report.ended_at is not None:
        return None
    made = outcome.made
    if made.good or outcome.absent:
        link.failing_since = link.last_error = None
    if made.good:
        report.sent_rev = max(report.sent_rev, rev)
    if report.rev != rev:
        return 0.0  # it is to show something else by now
    report.tries = [
        *report.tries,
        {"at": stamp(made.at), "status": made.status, "error": made.error, "ms": made.milliseconds},
    ]
    if made.good:
        report.state, report.ended_at = "delivered", utcnow()
        return None
    if outcome.final or len(report.tries) > RETRIES:
        _give_up(report, link, outcome)
        return None
    wait = min(max(pace.after(len(report.tries)), outcome.wait or 0.0), LONGEST_WAIT)
    report.due_at = utcnow() + timedelta(seconds=wait) + SILENCE
    return wait


def _give_up(report: ForgeReport, link: ForgeLink, outcome: Outcome) -> None:
    report.state, report.ended_at = "skipped" if outcome.absent else "failed", utcnow()
    if not outcome.absent:
        link.failing_since, link.last_error = link.failing_since or utcnow(), outcome.made.error


# read, and tried once more


def list_reports(
    session: Session, link_id: str, page: Page, *, state: str | None = None
) -> tuple[Sequence[ForgeReport], bool]:
    query = select(ForgeReport).where(ForgeReport.link_id == link_id)
    if state is not None:
        query = query.where(ForgeReport.state == state)
    return fetch_page(session, query, page, time=ForgeReport.created_at, id=ForgeReport.id)


def retry(session: Session, link: ForgeLink, id: str) -> ForgeReport:
    """One that was given up, or skipped, from its first try on. Raises forge_report.not_found and .not_repeatable."""
    report = session.get(ForgeReport, id, with_for_update=True)
    if report is None or report.link_id != link.id:
        raise HeadwayError("forge_report.not_found", f"There is no report {id}.", param="report_id")
    if report.state not in ("failed", "skipped"):
        raise HeadwayError("forge_report.not_repeatable", f"This report is {report.state}.")
    _begin(report, utcnow())
    session.add(report)
    return report


def forget_reports(session: Session, before: datetime) -> None:
    """What has ended before. A comment that is to be changed after that is found by its mark."""
    session.execute(delete(ForgeReport).where(col(ForgeReport.ended_at) < before))
