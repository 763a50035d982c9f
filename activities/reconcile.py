"""Find claimed rows whose runs are gone, and queues that nobody serves. Cheap: a query, then a look per open row."""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import timedelta
from typing import TypeVar

from sqlmodel import col, select
from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from activities.labels import ahead_in, roll_order
from activities.rollouts import CANCELED, run_is_open, run_status
from store.drifts import accept_repair, unmended
from store.integrity import suspects
from store.labels import bell_of, labels_of
from store.models import Build, Job, Rollout, utcnow
from store.outcomes import end_build, end_job, end_rollout
from store.queue import idle_queues, job_by_id, unseen_holds
from store.session import Store
from temporal import names
from temporal.failures import mapped
from temporal.messages import Ahead, Ended, JobRef, Labels, RollOrder, Suspects
from temporal.starts import TemporalStarts

T = TypeVar("T")
log = logging.getLogger("headway.reconcile")
# In one run, whose order and history hold all of them; which of more is by chance, so that none that cannot be ended
# keeps the others from it for ever.
MOST_LOST = 200
GRACE = timedelta(seconds=3)
TELL = timedelta(seconds=2)
# A held rollout's run looks at least once a minute, by itself.
UNSEEN = timedelta(seconds=90)
LOST = {"code": "job.lost", "message": "The run was ended from outside before it was done. Start a new job."}


def some(lost: list[T]) -> tuple[T, ...]:
    """As many as one run may have."""
    return tuple(lost if len(lost) <= MOST_LOST else random.sample(lost, MOST_LOST))


class Reconciler:
    """Activities of the role `control`, and the watch that its worker keeps beside them."""

    def __init__(self, store: Store, client: Client) -> None:
        self.store = store
        self.client = client
        self.starts = TemporalStarts(client)
        self._told: set[str] = set()

    async def watch(self, *, every: float = 2.0) -> None:
        """For ever: tell whose turn it is, and start the reconcile workflow when something is suspect."""
        while True:
            try:
                await self._look()
            except Exception as error:
                log.warning("reconcile will look again: %s", type(error).__name__)
            await asyncio.sleep(every)

    async def _look(self) -> None:
        for ahead in await asyncio.to_thread(self._idle):
            await self.starts.give_turn(ahead)
        await self._tell_canceled()
        await self._repair()
        suspects = await self.suspects()
        if suspects.jobs or suspects.rollouts:
            await self.client.start_workflow(
                names.RECONCILE,
                suspects,
                id=names.RECONCILE_WORKFLOW,
                task_queue=names.CONTROL,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                static_summary=f"{len(suspects.jobs)} jobs, {len(suspects.rollouts)} rollouts lost their runs",
            )

    async def _tell_canceled(self) -> None:
        """A cancel is a row first: the run is told again, in case that Temporal was away when it was to hear of it."""
        canceled = await asyncio.to_thread(self._canceled)
        self._told &= canceled
        for job_id in canceled - self._told:
            try:
                await self.client.get_workflow_handle(job_id).cancel(rpc_timeout=TELL)
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    return
            self._told.add(job_id)

    def _canceled(self) -> set[str]:
        with self.store.read() as session:
            running = select(Job.id).where(Job.status == "running", col(Job.finished_at).is_(None))
            return set(session.exec(running.where(col(Job.cancel_requested_at) < utcnow() - GRACE)).all())

    async def _repair(self) -> None:
        """What hosts cannot mend alone becomes a rollout like any other, in its environment's order."""
        repairs, doubtful = await asyncio.to_thread(self._repairs)
        for job, labels in repairs:
            await self.starts.start(job.id, job.type, labels=labels)
        if doubtful:
            await self.client.start_workflow(
                names.SCRUB,
                JobRef(names.SUSPECTS),
                id=f"{names.SCRUB_WORKFLOW}/{names.SUSPECTS}",
                task_queue=names.CONTROL,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                static_summary="read what hosts have lost contents of, and mend what is damaged",
            )

    def _repairs(self) -> tuple[list[tuple[Job, Labels]], bool]:
        """The repairs that begin now, and whether a host has lost bytes: then the object store's are looked at, too."""
        with self.store.read() as session:
            wanted = unmended(session)
        made = []
        for env_id in wanted:
            with self.store.write() as session:
                if (job := accept_repair(session, env_id)) is not None:
                    made.append((job, labels_of(session, env_id, job)))
        with self.store.read() as session:
            return made, bool(made and suspects(session, 1))

    def _idle(self) -> list[Ahead]:
        with self.store.read() as session:
            found = (ahead_in(session, env_id) for env_id in idle_queues(session))
            unseen = (bell_of(session, rollout) for rollout in unseen_holds(session, utcnow() - UNSEEN))
            return [*(ahead for ahead in found if ahead is not None), *unseen]

    async def suspects(self) -> Suspects:
        """Rows that were claimed a while ago, are not ended, and whose run is closed or unknown."""
        jobs, rollouts = await asyncio.to_thread(self._claimed)
        lost_rollouts = [order for order in rollouts if await self._is_lost(order)]
        covered = {order.job_id for order in rollouts}
        lost_jobs = [job_id for job_id in jobs if job_id not in covered and not await run_is_open(self.client, job_id)]
        still_jobs, still_rollouts = await asyncio.to_thread(self._claimed)
        open_rollouts = {order.rollout_id for order in still_rollouts}
        return Suspects(
            jobs=some([job_id for job_id in lost_jobs if job_id in still_jobs]),
            rollouts=some([order for order in lost_rollouts if order.rollout_id in open_rollouts]),
        )

    async def _is_lost(self, order: RollOrder) -> bool:
        """Whether nobody will end it. What Temporal has forgotten is started again before its point of no return."""
        status = await run_status(self.client, order.job_id)
        if status is WorkflowExecutionStatus.RUNNING:
            return False
        if status is not None or await asyncio.to_thread(self._is_committed, order.job_id):
            return True
        await self.starts.give_turn(Ahead(order.job_id, order.kind, order.labels))
        return False

    def _is_committed(self, job_id: str) -> bool:
        with self.store.read() as session:
            return job_by_id(session, job_id).committed_at is not None

    def _claimed(self) -> tuple[list[str], list[RollOrder]]:
        before = utcnow() - GRACE
        with self.store.read() as session:
            # What is in line, or held, needs no run: who is first is told, and its run is started where it is missing.
            in_line = select(Rollout.job_id).where(col(Rollout.status).in_(("queued", "held")))
            jobs = session.exec(
                select(Job.id).where(
                    col(Job.finished_at).is_(None),
                    Job.status == "running",
                    col(Job.started_at) < before,
                    col(Job.id).not_in(in_line),
                )
            ).all()
            running = session.exec(
                select(Rollout).where(Rollout.status == "running", col(Rollout.started_at) < before)
            ).all()
            return list(jobs), [roll_order(session, rollout) for rollout in running]

    @activity.defn(name="reconcile.lost")
    @mapped
    def lose_jobs(self, suspects: Suspects) -> Ended:
        with self.store.write() as session:
            for job_id in suspects.jobs:
                job = job_by_id(session, job_id)
                rollouts = session.exec(select(Rollout).where(Rollout.job_id == job_id)).all()
                if any(rollout.status in ("running", "held", "queued") for rollout in rollouts):
                    continue  # it has begun meanwhile: its own run ends it, or its hosts settle it
                canceled = job.cancel_requested_at is not None
                status, error = ("canceled", CANCELED) if canceled else ("failed", LOST)
                for build in session.exec(select(Build).where(Build.job_id == job_id)).all():
                    end_build(session, build, status, error)
                for rollout in rollouts:
                    end_rollout(session, rollout, status, error)
                end_job(session, job, status, error=error)
        return Ended(",".join(suspects.jobs[:5]), "failed")
