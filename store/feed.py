"""What happened in a team, told from its rows: who follows it is told each fact once, from when they came on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlmodel import Session, and_, col, or_, select
from sqlmodel.sql.expression import SelectOfScalar

from store.models import Build, Job, Project, Rollout, utcnow
from store.models_sandboxes import Sandbox
from store.sight import Sight

Json = dict[str, Any]
# A transaction's rows bear the time at which it began: what commits late is looked for so far back.
LATE: Final = timedelta(seconds=10)
# How far back who comes again may begin, and how long before that a job that ended since then was accepted at most.
BACK: Final = timedelta(days=1)
BUILDS: Final = ("build.run", "deployment.push")
SWITCHES: Final = ("deployment.push", "deployment.roll", "deployment.promote", "deployment.rollback")


@dataclass(frozen=True)
class Fact:
    """`kind` in the core's words; `key` tells it from every other one."""

    key: str
    kind: str
    moment: datetime
    site_id: str | None = None
    build_id: str | None = None
    job_id: str | None = None
    sandbox_id: str | None = None
    error: Json | None = None


@dataclass
class Feed:
    """One reader. `look` gives what is new since its last look; the first one what came behind `after`, or nothing."""

    sight: Sight
    team_id: str
    since: datetime = field(default_factory=utcnow)
    began: bool = False
    open: set[str] = field(default_factory=set)
    told: dict[str, datetime] = field(default_factory=dict)
    after: tuple[datetime, str] | None = None

    def resume(self, session: Session, key: str) -> None:
        """Begin behind this fact, if this reader could have been told of it within the last day; else from now on."""
        owner = key.partition(":")[0]
        found: list[Fact] = []
        if (job := session.exec(self._jobs().where(Job.id == owner)).one_or_none()) is not None:
            builds, rollouts = _by_job(session, Build, [job]), _by_job(session, Rollout, [job])
            found = [*facts_of(job, builds.get(job.id), rollouts.get(job.id))]
        elif (sandbox := session.exec(self._sandboxes().where(Sandbox.id == owner)).one_or_none()) is not None:
            found = [*_of_sandbox(sandbox)]
        last = next((one for one in found if one.key == key), None)
        if last is not None and last.moment > utcnow() - BACK:
            self.after, self.since = (last.moment, last.key), last.moment

    def look(self, session: Session) -> list[Fact]:
        now = utcnow()
        facts = [*self._of_jobs(session), *self._of_sandboxes(session)]
        fresh = sorted((one for one in facts if one.key not in self.told), key=lambda one: (one.moment, one.key))
        horizon = now - 6 * LATE
        open_still = tuple(f"{job_id}:" for job_id in self.open)
        self.told = {key: at for key, at in self.told.items() if at > horizon or key.startswith(open_still)}
        self.told |= {one.key: now for one in fresh}
        if not self.began:
            fresh = [one for one in fresh if self.after is not None and (one.moment, one.key) > self.after]
        self.began, self.since = True, now - LATE
        return fresh

    def _jobs(self) -> SelectOfScalar[Job]:
        return select(Job).where(*self.sight.jobs(), Job.team_id == self.team_id)

    def _sandboxes(self) -> SelectOfScalar[Sandbox]:
        within = select(col(Project.id)).where(Project.team_id == self.team_id, *self.sight.projects())
        return select(Sandbox).where(Sandbox.team_id == self.team_id, col(Sandbox.project_id).in_(within))

    def _of_jobs(self, session: Session) -> Iterator[Fact]:
        fresh = or_(col(Job.created_at) > self.since, col(Job.id).in_(self.open))
        # At the first look nothing is told: what is open then is what ends may come of.
        if not self.began:
            fresh = or_(col(Job.created_at) > self.since - LATE, col(Job.finished_at).is_(None))
        if not self.began and self.after is not None:
            ended = and_(col(Job.created_at) > self.since - BACK, col(Job.finished_at) > self.since - LATE)
            fresh = or_(fresh, ended)
        jobs = session.exec(self._jobs().where(fresh)).all()
        self.open = {job.id for job in jobs if job.finished_at is None}
        builds = _by_job(session, Build, jobs)
        rollouts = _by_job(session, Rollout, jobs)
        for job in jobs:
            yield from facts_of(job, builds.get(job.id), rollouts.get(job.id))

    def _of_sandboxes(self, session: Session) -> Iterator[Fact]:
        since = self.since - LATE if not self.began else self.since
        fresh = or_(col(Sandbox.created_at) > since, col(Sandbox.destroyed_at) > since)
        for row in session.exec(self._sandboxes().where(fresh)).all():
            yield from (one for one in _of_sandbox(row) if one.moment > since)


def _of_sandbox(row: Sandbox) -> Iterator[Fact]:
    yield Fact(f"{row.id}:created", "sandbox.created", row.created_at, sandbox_id=row.id)
    if row.destroyed_at is not None:
        yield Fact(f"{row.id}:destroyed", "sandbox.destroyed", row.destroyed_at, sandbox_id=row.id)


def _by_job(session: Session, table: Any, jobs: Sequence[Job]) -> dict[str, Any]:
    rows = session.exec(select(table).where(col(table.job_id).in_([job.id for job in jobs]))).all()
    return {row.job_id: row for row in rows}


def facts_of(job: Job, build: Build | None, rollout: Rollout | None) -> Iterator[Fact]:
    """Everything that a job has brought about so far."""
    named = build.id if build is not None else rollout.build_id if rollout is not None else None

    def fact(kind: str, moment: datetime, error: Json | None = None) -> Fact:
        return Fact(f"{job.id}:{kind}", kind, moment, job.site_id, named, job.id, error=error)

    if job.type == "site.create":
        yield fact("site.created", job.created_at)
    if job.type in BUILDS and build is not None:
        if build.started_at is not None:
            yield fact("build.started", build.started_at)
        if build.finished_at is not None:
            kind = "build.succeeded" if build.status == "succeeded" else "build.failed"
            yield fact(kind, build.finished_at, build.error)
    if job.finished_at is None:
        return
    if job.status == "succeeded" and job.type in SWITCHES:
        yield fact("rollout.succeeded", job.finished_at)
    if job.status == "succeeded" and job.type in ("deployment.stop", "site.delete"):
        yield fact({"deployment.stop": "site.stopped", "site.delete": "site.deleted"}[job.type], job.finished_at)
    yield fact("job.ended", job.finished_at, job.error)
