"""The control side of builds: claim the row, end the row."""

from __future__ import annotations

from dataclasses import replace

from sqlmodel import select
from temporalio import activity

from activities.labels import build_order, labels_of
from headway.errors import HeadwayError
from store.models import Build, Job, Rollout
from store.outcomes import fail_build, succeed_build
from store.queue import claim_build, claim_job
from store.session import Store
from store.turns import Shares, must_wait, supersede
from temporal.failures import error_dict, mapped
from temporal.messages import BuildOrder, BuildRef, Ended, ExecOrder, Failure, JobRef, PushOrder


class BuildRecords:
    """Activities of the role `control`."""

    def __init__(self, store: Store, shares: Shares | None = None) -> None:
        self.store = store
        self.shares = shares or Shares()

    @activity.defn(name="build.claim")
    @mapped
    def claim_build(self, ref: JobRef) -> BuildOrder:
        """The order; `waiting` where others of the site or the team come first. Raises job.superseded too."""
        if self._waits(ref):
            return self._order_of_waiting(ref)
        with self.store.write() as session:
            build_id = session.exec(select(Build.id).where(Build.job_id == ref.job_id)).first()
            if build_id is None:
                raise HeadwayError("build.not_found", f"Job {ref.job_id} has no build.")
            build, job, _site, _environment = claim_build(session, build_id)
            return build_order(session, build, job)

    def _waits(self, ref: JobRef) -> bool:
        superseded = False
        with self.store.write() as session:
            build = session.exec(select(Build).where(Build.job_id == ref.job_id)).first()
            if build is None or not must_wait(session, build, self.shares):
                return False
            superseded = supersede(session, build)
        if superseded:
            raise HeadwayError("job.superseded", "A newer push of this branch has taken its place.")
        return True

    def _order_of_waiting(self, ref: JobRef) -> BuildOrder:
        with self.store.read() as session:
            build = session.exec(select(Build).where(Build.job_id == ref.job_id)).one()
            return replace(build_order(session, build, session.get_one(Job, ref.job_id)), waiting=True)

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

    @activity.defn(name="push.claim")
    @mapped
    def claim_push(self, ref: JobRef) -> PushOrder:
        with self.store.write() as session:
            job = claim_job(session, ref.job_id)
            rollout = session.exec(select(Rollout).where(Rollout.job_id == job.id)).one()
            labels = labels_of(session, rollout.env_id, job)
            return PushOrder(job.id, rollout.build_id or "", rollout.id, rollout.env_id, labels)
