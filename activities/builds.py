"""The control side of builds: claim the row, end the row."""

from __future__ import annotations

from sqlmodel import select
from temporalio import activity

from activities.labels import build_order
from headway.errors import HeadwayError
from store.models import Build
from store.outcomes import fail_build, succeed_build
from store.queue import claim_build, claim_job
from store.session import Store
from temporal.failures import error_dict, mapped
from temporal.messages import BuildOrder, BuildRef, Ended, ExecOrder, Failure, JobRef


class BuildRecords:
    """Activities of the role `control`."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @activity.defn(name="build.claim")
    @mapped
    def claim_build(self, ref: JobRef) -> BuildOrder:
        with self.store.write() as session:
            build_id = session.exec(select(Build.id).where(Build.job_id == ref.job_id)).first()
            if build_id is None:
                raise HeadwayError("build.not_found", f"Job {ref.job_id} has no build.")
            build, job, _site, _environment = claim_build(session, build_id)
            return build_order(session, build, job)

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
