"""The control side of sites and environments: claim, repository, activate, retire."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlmodel import Session, col, select
from temporalio import activity

from activities.labels import PATIENCE
from adapters.githost.repositories import make_bare
from headway.errors import HeadwayError
from store.config_values import destroy_values
from store.environments import made_facts
from store.forge_links import forget_link
from store.labels import labels_of
from store.locks import forget_lock
from store.models import Environment, Job, Rollout, Site, utcnow
from store.outcomes import activate, end_job, end_rollout, retire_environment
from store.polling import forget_remote
from store.queue import cancel_queued_builds, claim_job, job_by_id
from store.session import Store
from temporal.failures import error_dict, mapped
from temporal.messages import Ended, Failure, JobRef, PlaceOrder, RetireOrder

Json = dict[str, Any]


class EnvironmentRecords:
    """Activities of the role `control`. `repositories` is the folder of hosted bare repositories; `site_url` makes an
    address of a host name. `patience` is for hosts, in seconds."""

    def __init__(
        self, store: Store, repositories: Path, site_url: Callable[[str], str], patience: int = PATIENCE
    ) -> None:
        self.store = store
        self.repositories = repositories
        self.site_url = site_url
        self.patience = patience

    @activity.defn(name="environment.claim")
    @mapped
    def claim_provision(self, ref: JobRef) -> PlaceOrder:
        with self.store.write() as session:
            job = claim_job(session, ref.job_id)
            environment = session.get(Environment, job.env_id)
            if environment is None:
                raise HeadwayError("environment.not_found", f"Job {job.id} has no environment.")
            site = session.get_one(Site, environment.site_id)
            return PlaceOrder(
                job_id=job.id,
                env_id=environment.id,
                hosts=tuple(environment.hosts),
                site_id=site.id,
                hosted=site.repository is None and job.type == "site.create",
                labels=labels_of(session, environment.id, job),
                patience=self.patience,
                away=environment.away,
            )

    @activity.defn(name="environment.repository")
    @mapped
    def make_repository(self, order: PlaceOrder) -> PlaceOrder:
        path = self.repositories / f"{order.site_id}.git"
        with self.store.read() as session:
            branch = session.get_one(Site, order.site_id).default_branch
        if not (path / "HEAD").exists():
            make_bare(path, branch)
        return order

    @activity.defn(name="environment.activate")
    @mapped
    def activate(self, order: PlaceOrder) -> Ended:
        with self.store.write() as session:
            activate(session, order.env_id)
            job = job_by_id(session, order.job_id)
            result: Json = {"env_id": order.env_id, "site_id": order.site_id} | _without(order)
            if job.type == "environment.create":
                result |= made_facts(session, order.env_id, self.site_url)
            return Ended(job.id, end_job(session, job, "succeeded", result=result).status)

    @activity.defn(name="environment.protected")
    @mapped
    def protected(self, order: PlaceOrder) -> Ended:
        with self.store.write() as session:
            job = job_by_id(session, order.job_id)
            result: Json = {"env_id": order.env_id, "protected": bool((job.resource or {}).get("protected"))}
            result |= _without(order)
            return Ended(job.id, end_job(session, job, "succeeded", result=result).status)

    @activity.defn(name="environment.retire.claim")
    @mapped
    def claim_retire(self, ref: JobRef) -> RetireOrder:
        with self.store.write() as session:
            job = claim_job(session, ref.job_id)
            whole = job.type == "site.delete"
            of = Environment.site_id == job.site_id if whole else Environment.id == job.env_id
            environments = session.exec(select(Environment).where(of, Environment.status != "gone")).all()
            for environment in environments:
                environment.status = "deleting"
                self._end_queue(session, environment.id)
            orders = [PlaceOrder(job.id, e.id, tuple(e.hosts), e.site_id, patience=self.patience) for e in environments]
            return RetireOrder(job.id, job.site_id or "", tuple(orders), whole)

    def _end_queue(self, session: Session, env_id: str) -> None:
        waiting = select(Rollout).where(
            Rollout.env_id == env_id, col(Rollout.status).in_(("waiting", "held", "queued"))
        )
        for rollout in session.exec(waiting).all():
            error = {"code": "job.canceled", "message": "The environment was deleted."}
            end_rollout(session, rollout, "canceled", error)

    @activity.defn(name="environment.retired")
    @mapped
    def retired(self, order: RetireOrder) -> Ended:
        with self.store.write() as session:
            for environment in order.environments:
                retire_environment(session, environment.env_id)
            site = session.get(Site, order.site_id)
            if order.whole_site and site is not None and site.deleted_at is None:
                site.status, site.deleted_at = "gone", utcnow()
                destroy_values(session, owner_id=site.id)
                forget_remote(session, site.id)
                forget_lock(session, site.id)
                forget_link(session, site.id)
                cancel_queued_builds(session, site.id)
            job = session.get_one(Job, order.job_id)
            return Ended(job.id, end_job(session, job, "succeeded", result={"deleted": True}).status)

    @activity.defn(name="job.fail")
    @mapped
    def fail_job(self, failure: Failure) -> Ended:
        with self.store.write() as session:
            job = job_by_id(session, failure.subject_id)
            status = "canceled" if failure.canceled else "failed"
            return Ended(job.id, end_job(session, job, status, error=error_dict(failure)).status)


def _without(order: PlaceOrder) -> Json:
    """Hosts that did not answer; they catch up by themselves."""
    return {"hosts_away": list(order.left_out)} if order.left_out else {}
