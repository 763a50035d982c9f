"""The control side of rollouts: the queue, the point of no return, the release; and what became of lost runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sqlmodel import Session
from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from activities.labels import labels_of, roll_order
from headway.errors import HeadwayError
from store import queue
from store.models import Job, Rollout, utcnow
from store.outcomes import append_release, end_rollout, primary_hostname, record_stop
from store.session import Store
from temporal import names
from temporal.failures import error_dict, mapped
from temporal.messages import (
    Ended,
    Enqueue,
    EnvironmentRef,
    Failure,
    JobRef,
    Labels,
    RollOrder,
    RolloutRef,
    Settle,
    Standing,
)
from temporal.starts import TemporalStarts


class RolloutRecords:
    """Activities of the role `control`. `site_url` makes an address of a host name."""

    def __init__(self, store: Store, client: Client, site_url: Callable[[str], str]) -> None:
        self.store = store
        self.client = client
        self.starts = TemporalStarts(client)
        self.site_url = site_url

    @activity.defn(name="rollout.next")
    @mapped
    def claim_next(self, ref: EnvironmentRef) -> RollOrder | None:
        with self.store.write() as session:
            rollout = queue.claim_next(session, ref.env_id)
            return roll_order(session, rollout) if rollout else None

    @activity.defn(name="rollout.preempt")
    @mapped
    def preempt(self, ref: EnvironmentRef) -> RolloutRef | None:
        with self.store.write() as session:
            rollout = queue.preempt(session, ref.env_id)
            return RolloutRef(rollout.id) if rollout else None

    @activity.defn(name="rollout.commit")
    @mapped
    def commit(self, ref: RolloutRef) -> RolloutRef:
        with self.store.write() as session:
            queue.commit_rollout(session, ref.rollout_id)
            return ref

    @activity.defn(name="rollout.record")
    @mapped
    def record_release(self, ref: RolloutRef) -> Ended:
        with self.store.write() as session:
            return self._append(session, ref.rollout_id)

    def _append(self, session: Session, rollout_id: str) -> Ended:
        rollout = session.get_one(Rollout, rollout_id)
        if rollout.kind == "stop":
            record_stop(session, rollout_id)
            return Ended(rollout_id, "succeeded")
        hostname = primary_hostname(session, rollout.env_id)
        append_release(session, rollout_id, self.site_url(hostname) if hostname else None)
        return Ended(rollout_id, "succeeded")

    @activity.defn(name="rollout.fail")
    @mapped
    def fail_rollout(self, failure: Failure) -> Ended:
        with self.store.write() as session:
            rollout = session.get_one(Rollout, failure.subject_id, with_for_update=True)
            # A build's failure ends only what waits for it: what has joined the queue ends by its own run.
            if failure.stage != "build" or rollout.status == "waiting":
                end_rollout(session, rollout, "canceled" if failure.canceled else "failed", error_dict(failure))
            return Ended(rollout.id, rollout.status)

    @activity.defn(name="rollout.enqueue")
    @mapped
    async def enqueue(self, order: Enqueue) -> Standing:
        rollout = await asyncio.to_thread(self._ready, order)
        await self.starts.ring(rollout.env_id, order.labels)
        return Standing(rollout.status, open=True)

    def _ready(self, order: Enqueue) -> Rollout:
        with self.store.write() as session:
            return queue.ready_rollout(session, order.rollout_id, order.artifact_id)

    @activity.defn(name="rollout.standing")
    @mapped
    async def standing(self, ref: RolloutRef) -> Standing:
        rollout, composite = await asyncio.to_thread(self._look, ref)
        if rollout.status != "running":
            return Standing(rollout.status, open=False)
        open_run = await run_is_open(self.client, names.roll_workflow(rollout.id) if composite else rollout.job_id)
        # The row is read again after the run: a run that has just ended wrote its end first.
        rollout, _ = await asyncio.to_thread(self._look, ref)
        return Standing(rollout.status, open_run)

    def _look(self, ref: RolloutRef) -> tuple[Rollout, bool]:
        with self.store.read() as session:
            rollout = session.get_one(Rollout, ref.rollout_id)
            return rollout, session.get_one(Job, rollout.job_id).type == "deployment.push"

    @activity.defn(name="rollout.settle")
    @mapped
    async def settle(self, order: Settle) -> Ended:
        ended, env_id, labels = await asyncio.to_thread(self._settle, order)
        await self.starts.ring(env_id, labels)
        return ended

    def _settle(self, order: Settle) -> tuple[Ended, str, Labels]:
        with self.store.write() as session:
            rollout = session.get_one(Rollout, order.rollout_id, with_for_update=True)
            labels = labels_of(session, rollout.env_id)
            if rollout.finished_at is None:
                reached = 0 if rollout.kind == "stop" else rollout.apply_seq
                if order.lives and all(live.seq == reached for live in order.lives):
                    self._append(session, rollout.id)
                else:
                    error = {"code": "job.lost", "message": _lost(order), "stage": rollout.stage or "queued"}
                    end_rollout(session, rollout, "failed", error)
            return Ended(rollout.id, rollout.status), rollout.env_id, labels

    @activity.defn(name="job.cancel")
    @mapped
    async def request_cancel(self, ref: JobRef) -> Ended:
        job, rollout_id = await asyncio.to_thread(self._flag, ref)
        if rollout_id is not None:
            await self.starts.cancel(names.roll_workflow(rollout_id))
        return Ended(ref.job_id, job.status)

    def _flag(self, ref: JobRef) -> tuple[Job, str | None]:
        with self.store.write() as session:
            job = queue.job_by_id(session, ref.job_id)
            if job.finished_at is not None or job.committed_at is not None:
                return job, None
            job.cancel_requested_at = job.cancel_requested_at or utcnow()
            rollout = session.get(Rollout, job.resource_id)
            if rollout is not None and rollout.status in ("waiting", "queued"):
                error = {"code": "job.canceled", "message": "Canceled before its turn: what was live still is."}
                end_rollout(session, rollout, "canceled", error)
            return job, rollout.id if rollout is not None and rollout.status == "running" else None


def _lost(order: Settle) -> str:
    serving = ", ".join(f"{live.host_id} serves number {live.seq}" for live in order.lives) or "no host was asked"
    return f"The run was ended from outside before it was done; {serving}. Start a new deployment."


async def run_is_open(client: Client, workflow_id: str) -> bool:
    """Whether Temporal knows this run as running. Raises for a server that does not answer."""
    return await run_status(client, workflow_id) is WorkflowExecutionStatus.RUNNING


async def run_status(client: Client, workflow_id: str) -> WorkflowExecutionStatus | None:
    """What Temporal knows of a run; None where it knows none of that id. Raises service.unavailable."""
    try:
        return (await client.get_workflow_handle(workflow_id).describe()).status
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise HeadwayError("service.unavailable", "Temporal does not answer.") from error
