"""The control side of rollouts: the queue, the point of no return, the release; and what became of lost runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

from sqlmodel import Session
from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from activities.labels import PATIENCE, ahead_in, roll_order
from headway.errors import HeadwayError
from store import queue
from store.fleet import note_away, settle_hosts
from store.models import Build, Job, Rollout, utcnow
from store.outcomes import end_rollout, located, primary_hostname, record_live, record_stop
from store.session import Store
from temporal.failures import error_dict, mapped
from temporal.messages import Ahead, Baked, Ended, Failure, JobRef, RolloutRef, Settle, Turn, TurnRef
from temporal.starts import TemporalStarts

T = TypeVar("T")
CANCELED = {"code": "job.canceled", "message": "The job was canceled on request."}


class RolloutRecords:
    """Activities of the role `control`. `site_url` makes an address of a host name; `patience` is for hosts, in s."""

    def __init__(self, store: Store, client: Client, site_url: Callable[[str], str], patience: int = PATIENCE) -> None:
        self.store = store
        self.client = client
        self.starts = TemporalStarts(client)
        self.site_url = site_url
        self.patience = patience

    @activity.defn(name="rollout.claim")
    @mapped
    async def claim_turn(self, ref: TurnRef) -> Turn:
        turn, in_the_way, ahead = await asyncio.to_thread(self._claim, ref)
        if in_the_way is not None:
            await self.starts.cancel(in_the_way)
        if ahead is not None:
            await self.starts.give_turn(ahead)
        return turn

    def _claim(self, ref: TurnRef) -> tuple[Turn, str | None, Ahead | None]:
        with self.store.write() as session:
            rollout = queue.claim_turn(session, ref.job_id, ref.artifact_id or None)
            if rollout.status == "running":
                return Turn(rollout.id, rollout.status, roll_order(session, rollout, self.patience)), None, None
            # What is held or refused leaves the queue: whoever stood behind it is told.
            ahead = ahead_in(session, rollout.env_id) if rollout.status in ("held", "failed") else None
            other = queue.preempt(session, rollout.env_id) if rollout.kind in queue.ENDS_BAKE else None
            waits_for = session.get_one(Job, rollout.job_id).waits_for or {}
            reasons = " ".join(str(reason["message"]) for reason in waits_for.get("reasons", ()))
            return Turn(rollout.id, rollout.status, reason=reasons), other.job_id if other else None, ahead

    @activity.defn(name="rollout.commit")
    @mapped
    def commit(self, ref: RolloutRef) -> RolloutRef:
        with self.store.write() as session:
            queue.commit_rollout(session, ref.rollout_id)
            return ref

    @activity.defn(name="rollout.bake")
    @mapped
    def note_bake(self, baked: Baked) -> RolloutRef:
        with self.store.write() as session:
            if baked.measured:
                queue.keep_bake(session, baked.rollout_id, [asdict(one) for one in baked.measured])
            else:
                queue.begin_bake(session, baked.rollout_id)
            return RolloutRef(baked.rollout_id)

    @activity.defn(name="rollout.record")
    @mapped
    async def record_release(self, ref: RolloutRef) -> Ended:
        return await self._then_the_next(self._record, ref)

    async def _then_the_next(self, end: Callable[[T], tuple[Ended, Ahead | None]], given: T) -> Ended:
        """The row ends first: what comes after it is only told, and looked for again where that is lost."""
        ended, ahead = await asyncio.to_thread(end, given)
        if ahead is not None:
            await self.starts.give_turn(ahead)
        return ended

    def _record(self, ref: RolloutRef) -> tuple[Ended, Ahead | None]:
        with self.store.write() as session:
            ended = self._append(session, ref.rollout_id, ref.away)
            return ended, ahead_in(session, session.get_one(Rollout, ref.rollout_id).env_id)

    def _append(self, session: Session, rollout_id: str, away: tuple[str, ...]) -> Ended:
        rollout = session.get_one(Rollout, rollout_id)
        if rollout.finished_at is None:
            settle_hosts(session, rollout, away)
        if rollout.kind == "stop":
            record_stop(session, rollout_id)
            return Ended(rollout_id, "succeeded")
        hostname = primary_hostname(session, rollout.env_id)
        record_live(session, rollout_id, self.site_url(hostname) if hostname else None)
        return Ended(rollout_id, "succeeded")

    @activity.defn(name="rollout.fail")
    @mapped
    async def fail_rollout(self, failure: Failure) -> Ended:
        return await self._then_the_next(self._fail, failure)

    def _fail(self, failure: Failure) -> tuple[Ended, Ahead | None]:
        with self.store.write() as session:
            rollout = queue.lock_rollout(session, failure.subject_id)
            job = session.get_one(Job, rollout.job_id)
            if rollout.status == "running" and job.committed_at is not None and not failure.undone:
                return Ended(rollout.id, "committed"), None
            note_away(session, rollout, failure.away, "it could not be asked when a rollout was put back")
            build = session.get(Build, rollout.build_id) if rollout.build_id else None
            error = located(error_dict(failure), build)
            end_rollout(session, rollout, "canceled" if failure.canceled else "failed", error)
            return Ended(rollout.id, rollout.status), ahead_in(session, rollout.env_id)

    @activity.defn(name="rollout.settle")
    @mapped
    async def settle(self, order: Settle) -> Ended:
        return await self._then_the_next(self._settle, order)

    def _settle(self, order: Settle) -> tuple[Ended, Ahead | None]:
        with self.store.write() as session:
            rollout = queue.lock_rollout(session, order.rollout_id)
            if rollout.finished_at is None:
                reached = 0 if rollout.kind == "stop" else rollout.apply_seq
                if order.lives and all(live.seq == reached for live in order.lives):
                    self._append(session, rollout.id, order.away)
                else:
                    note_away(session, rollout, order.away, "it could not be asked when a lost rollout was settled")
                    end_rollout(session, rollout, *_end_of(order, rollout, session.get_one(Job, rollout.job_id)))
            return Ended(rollout.id, rollout.status), ahead_in(session, rollout.env_id)

    @activity.defn(name="job.cancel")
    @mapped
    async def request_cancel(self, ref: JobRef) -> Ended:
        job, rolls = await asyncio.to_thread(self._flag, ref)
        if rolls:
            await self.starts.cancel(job.id)
        return Ended(ref.job_id, job.status)

    def _flag(self, ref: JobRef) -> tuple[Job, bool]:
        with self.store.write() as session:
            job = queue.job_by_id(session, ref.job_id)
            if job.finished_at is not None or (job.committed_at is not None and job.stage != "bake"):
                return job, False
            job.cancel_requested_at = job.cancel_requested_at or utcnow()
            rollout = session.get(Rollout, job.resource_id)
            if rollout is not None and rollout.status in ("waiting", "held", "queued"):
                error = {"code": "job.canceled", "message": "Canceled before its turn: what was live still is."}
                end_rollout(session, rollout, "canceled", error)
            return job, rollout is not None and rollout.status == "running"


def _end_of(order: Settle, rollout: Rollout, job: Job) -> tuple[str, dict[str, Any]]:
    """What is lost is canceled where somebody had asked for that in time, and no run was there any more to do it."""
    if order.failure is None and job.committed_at is None and job.cancel_requested_at is not None:
        return "canceled", CANCELED
    return "failed", _why(order, rollout)


def _why(order: Settle, rollout: Rollout) -> dict[str, Any]:
    if order.failure is not None:
        return error_dict(order.failure)
    serving = ", ".join(f"{live.host_id} serves number {live.seq}" for live in order.lives) or "no host was asked"
    message = f"The run was ended from outside before it was done; {serving}. Start a new deployment."
    return {"code": "job.lost", "message": message, "stage": rollout.stage or "queued"}


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
