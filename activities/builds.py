"""The control side of builds: claim the row, end the row."""

from __future__ import annotations

from dataclasses import replace

from sqlmodel import select
from temporalio import activity

from activities.labels import build_order
from headway.errors import HeadwayError
from store.models import Build, Job
from store.outcomes import fail_build, succeed_build
from store.queue import claim_build, claim_job
from store.session import Store
from store.turns import Shares, must_wait, supersede
from temporal.failures import error_dict, mapped
from temporal.messages import BuildOrder, BuildRef, Ended, ExecOrder, Failure, JobRef


class BuildRecords:
    """Activities of the role `control`."""

    def __init__(self, store: Store, shares: Shares | None = None) -> None:
        self.store = store
        self.shares = shares or Shares()

    @activity.defn(name="build.claim")
    @mapped
    def claim_build(self, ref: JobRef) -> BuildOrder:
        """The order; `waiting` where others of the site or the team come first. Raises job.superseded too."""
        with self.store.write() as session:
            build = session.exec(select(Build).where(Build.job_id == ref.job_id)).first()
            if build is None:
                raise HeadwayError("build.not_found", f"Job {ref.job_id} has no build.")
            if not must_wait(session, build, self.shares):
                build, job, _site, _environment = claim_build(session, build.id)
                return build_order(session, build, job)
            superseded = supersede(session, build)
            waiting = replace(build_order(session, build, session.get_one(Job, ref.job_id)), waiting=True)
        if superseded:
            raise HeadwayError("job.superseded", "A newer push of this branch has taken its place.")
        return waiting

    @activity.defn(name="build.succeed")
    @mapped
    def succeed_build(self, ref: BuildRef) -> Ended:
        with self.store.write() as session:
            return Ended(ref.build_id, succeed_build(session, ref.build_id).status)

    @activity.defn(name="build.fail")
    @mapped
    def fail_build(self, failure: Failure) -> Ended:
        with self.store.write() as session:
            build = fail_build(session, failure.subject_id, error_dict(failure), canceled=failure.canceled)
            return Ended(build.id, build.status)

    @activity.defn(name="exec.claim")
    @mapped
    def claim_exec(self, ref: JobRef) -> ExecOrder:
        with self.store.write() as session:
            job = claim_job(session, ref.job_id)
            return ExecOrder(job.id, job.resource_id)
