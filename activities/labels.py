"""Orders made from claimed rows."""

from __future__ import annotations

from sqlmodel import Session

from store.drifts import SYSTEM
from store.fleet import hosts_of
from store.labels import bell_of, labels_of
from store.models import Artifact, Build, Environment, Job, Rollout, Site
from store.queue import next_in_line
from temporal.messages import Ahead, BuildOrder, RollOrder

# Seconds in which a host of several takes up its work, or is away.
PATIENCE = 10
# Kinds that bring something new, in code or configuration.
BAKED = ("deploy", "promote", "restart")


def build_order(session: Session, build: Build, job: Job) -> BuildOrder:
    labels = labels_of(session, build.env_id, job)
    made = session.get(Artifact, build.artifact_id) if build.status == "succeeded" and build.artifact_id else None
    return BuildOrder(
        job_id=job.id,
        build_id=build.id,
        site_id=build.site_id,
        env_id=build.env_id,
        ref=build.ref,
        labels=labels,
        artifact_id=made.id if made else "",
        digest=made.digest if made else "",
        rollout_id=job.resource_id if job.resource_type == "deployment" else "",
    )


def roll_order(session: Session, rollout: Rollout, patience: int = PATIENCE) -> RollOrder:
    """The order of a claimed rollout (its numbers are given). What lets one host catch up fails for no other one."""
    job, environment = session.get(Job, rollout.job_id), session.get(Environment, rollout.env_id)
    seconds = environment.bake_seconds if environment and rollout.kind in BAKED else 0
    return RollOrder(
        job_id=rollout.job_id,
        rollout_id=rollout.id,
        kind=rollout.kind,
        env_id=rollout.env_id,
        hosts=tuple(hosts_of(session, rollout)) or ("local",),
        apply_seq=rollout.apply_seq or 0,
        undo_seq=rollout.undo_seq or 0,
        labels=labels_of(session, rollout.env_id, job),
        bake_seconds=seconds,
        away="skip" if rollout.actor == SYSTEM else environment.away if environment else "fail",
        patience=patience,
        team=session.get_one(Site, rollout.site_id).team_id if seconds else "",
    )


def ahead_in(session: Session, env_id: str) -> Ahead | None:
    """Whose turn it is in an environment, if nobody has it."""
    rollout = next_in_line(session, env_id)
    return bell_of(session, rollout) if rollout is not None else None
