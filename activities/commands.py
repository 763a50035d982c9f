"""One-off commands, the control side: claim the row, end the row."""

from __future__ import annotations

from temporalio import activity

from activities.labels import PATIENCE
from store.commands import end_command, place_command
from store.labels import labels_of
from store.queue import claim_job, job_by_id
from store.session import Store
from temporal.failures import mapped
from temporal.messages import CommandEnded, CommandOrder, Ended, JobRef


class CommandRecords:
    """Activities of the role `control`."""

    def __init__(self, store: Store, patience: int = PATIENCE) -> None:
        self.store = store
        self.patience = patience

    @activity.defn(name="command.claim")
    @mapped
    def claim_command(self, ref: JobRef) -> CommandOrder:
        with self.store.write() as session:
            job = claim_job(session, ref.job_id)
            environment = place_command(session, job)
            labels = labels_of(session, environment.id, job)
            return CommandOrder(job.id, tuple(environment.hosts), self.patience, labels)

    @activity.defn(name="command.end")
    @mapped
    def end_command(self, ended: CommandEnded) -> Ended:
        with self.store.write() as session:
            job = end_command(session, job_by_id(session, ended.job_id), ended.exit_code, ended.duration_ms)
            return Ended(job.id, job.status)
