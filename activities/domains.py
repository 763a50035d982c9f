"""Domains: the control side. Look for the proof, write down what was found, end the job."""

from __future__ import annotations

from collections.abc import Callable

from sqlmodel import Session
from temporalio import activity

from activities.labels import PATIENCE
from adapters.domains.lookup import Lookup
from headway.errors import HeadwayError
from store import domains
from store.domains import Looked
from store.labels import labels_of
from store.models import Environment, Job
from store.models_domains import Domain
from store.outcomes import end_job
from store.queue import claim_job, job_by_id
from store.session import Store
from temporal.failures import error_dict, mapped
from temporal.messages import Certified, DomainOrder, Ended, Failure, JobRef, Verified


class DomainRecords:
    """Activities of the role `control`."""

    def __init__(self, store: Store, lookup: Lookup, patience: int = PATIENCE) -> None:
        self.store = store
        self.lookup = lookup
        self.patience = patience

    @activity.defn(name="domain.claim")
    @mapped
    def claim(self, ref: JobRef) -> DomainOrder:
        with self.store.write() as session:
            job = claim_job(session, ref.job_id)
            domain = session.get_one(Domain, job.resource_id)
            environment = session.get_one(Environment, domain.env_id)
            return DomainOrder(
                job_id=job.id,
                domain_id=domain.id,
                env_id=domain.env_id,
                hostname=domain.hostname,
                # Of an environment that is gone the hosts have forgotten every name.
                hosts=tuple(environment.hosts) if environment.deleted_at is None else (),
                patience=float((job.input or {}).get("patience", 0)),
                labels=labels_of(session, domain.env_id, job),
                away=environment.away,
                host_patience=self.patience,
            )

    @activity.defn(name="domain.verify")
    @mapped
    def verify(self, order: DomainOrder) -> Verified:
        with self.store.read() as session:
            token = session.get_one(Domain, order.domain_id).token
        try:
            found = self.lookup.look(order.hostname, token)
        except HeadwayError as error:
            return Verified(order.domain_id, why=error.message)
        looked = Looked(found.proven, found.points_here, found.seen, found.why)
        proven = self.store.in_write(lambda session: domains.note_look(session, order.domain_id, looked))
        return Verified(order.domain_id, proven, found.points_here, found.why)

    @activity.defn(name="domain.attach")
    @mapped
    def attach(self, certified: Certified) -> Ended:
        def work(session: Session, job: Job) -> None:
            domains.activate(session, certified.domain_id, job, certified=certified.issued, away=certified.left_out)

        return self._end(certified.job_id, work)

    @activity.defn(name="domain.detach")
    @mapped
    def detach(self, order: DomainOrder) -> Ended:
        def work(session: Session, job: Job) -> None:
            if job.finished_at is None:
                domains.tell_domain(session, session.get_one(Domain, order.domain_id), "detached")
            without = {"hosts_away": list(order.left_out)} if order.left_out else {}
            end_job(session, job, "succeeded", result={"domain_id": order.domain_id, "deleted": True, **without})

        return self._end(order.job_id, work)

    @activity.defn(name="domain.fail")
    @mapped
    def fail(self, failure: Failure) -> Ended:
        def work(session: Session, job: Job) -> None:
            error = error_dict(failure)
            patience = float((job.input or {}).get("patience", 0))
            domains.give_up(session, job.resource_id, error, final=patience > 0 and not failure.canceled)
            end_job(session, job, "canceled" if failure.canceled else "failed", error=error)

        return self._end(failure.subject_id, work)

    def _end(self, job_id: str, work: Callable[[Session, Job], None]) -> Ended:
        with self.store.write() as session:
            job = job_by_id(session, job_id)
            work(session, job)
            return Ended(job.id, job.status)
