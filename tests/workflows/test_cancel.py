"""A cancel that comes at a bad moment: each job ends once, and its rows say as what."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session, select

import activities.builds
import activities.commands
import activities.environments
import activities.reconcile
import activities.rollouts
from store import queue
from store.environments import accept_deletion
from store.jobs import cancel_job
from store.models import Build, Environment, Job, Rollout, Site
from store.protection import accept_lock
from temporal import names
from temporal.messages import JobRef
from temporal.starts import WORKFLOWS
from tests.workflows.engine import Engine, run_story
from tests.workflows.rows import World

ACCEPTED: dict[str, Callable[[World], Job]] = {
    "build": lambda world: world.accept_build(),
    "push": lambda world: world.accept_push(),
    "roll": lambda world: world.accept_roll(world.artifact("a" * 64)),
    "exec": lambda world: world.accept_exec(),
}


def claim(session: Session, job: Job) -> None:
    """As a worker does it that is killed before Temporal hears of it."""
    build = session.exec(select(Build).where(Build.job_id == job.id)).first()
    if build is not None:
        queue.claim_build(session, build.id)
    elif job.resource_type == "deployment":
        queue.claim_turn(session, job.id)
    else:
        queue.claim_job(session, job.id)


def flag(made: Engine, job: Job) -> None:
    """What the API writes, whether Temporal hears of it or not."""
    with made.store.write() as session:
        cancel_job(session, session.get_one(Job, job.id))


def ends(made: Engine, job: Job) -> list[str]:
    """How the rows of a job that ended have ended: the job's, its build's, its rollout's."""
    with made.store.read() as session:
        builds = session.exec(select(Build).where(Build.job_id == job.id)).all()
        rollouts = session.exec(select(Rollout).where(Rollout.job_id == job.id)).all()
        ended = session.get_one(Job, job.id)
        assert (ended.error or {}).get("code") == ("job.canceled" if ended.status == "canceled" else "job.lost")
        return [row.status for row in (ended, *builds, *rollouts)]


@pytest.mark.parametrize("by", ["job", "operator"])
@pytest.mark.parametrize("what", ACCEPTED)
def test_what_a_dead_worker_had_claimed_is_canceled(tmp_path: Path, what: str, by: str) -> None:
    """The run's start and its cancel are heard at once, by the worker that comes after."""

    async def story(made: Engine) -> None:
        job = ACCEPTED[what](made.world)
        made.store.in_write(lambda session: claim(session, session.get_one(Job, job.id)))
        if by == "job":
            flag(made, job)
        run = await made.client.start_workflow(
            WORKFLOWS[job.type],
            JobRef(job.id),
            id=job.id,
            task_queue=names.CONTROL,
            start_delay=timedelta(seconds=1),
        )
        await run.cancel()
        await made.ended(job)
        assert set(ends(made, job)) == {"canceled"}
        assert (made.host.placing, made.builder.started) == ([], [])

    run_story(tmp_path, story)


@pytest.mark.parametrize(("what", "asked"), [*((what, True) for what in ACCEPTED), ("roll", False)])
def test_a_lost_run_that_was_to_end_was_canceled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, *, asked: bool
) -> None:
    monkeypatch.setattr(activities.reconcile, "GRACE", timedelta(seconds=0.2))
    # Told of its turn before it is claimed here, another run would carry it out.
    monkeypatch.setattr(activities.reconcile.Reconciler, "_idle", lambda _self: [])

    async def story(made: Engine) -> None:
        job = ACCEPTED[what](made.world)
        run = await made.client.start_workflow(
            WORKFLOWS[job.type], JobRef(job.id), id=job.id, task_queue="nobody-polls-this"
        )
        made.store.in_write(lambda session: claim(session, session.get_one(Job, job.id)))
        if asked:
            flag(made, job)
        await run.terminate("an operator's hand")
        await made.ended(job)
        assert set(ends(made, job)) == {"canceled" if asked else "failed"}
        assert made.host.live == 0

    run_story(tmp_path, story, reconcile=True)


def test_a_cancel_that_temporal_did_not_hear_is_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activities.reconcile, "GRACE", timedelta(seconds=0.2))

    async def story(made: Engine) -> None:
        made.builder.gates["main"] = asyncio.Event()
        job = made.world.accept_build()
        await made.start(job)
        await made.until(lambda: made.builder.started, bool)
        flag(made, job)
        await made.ended(job)
        assert ends(made, job) == ["canceled", "canceled"]
        assert made.builder.canceled == ["main"]

    run_story(tmp_path, story, reconcile=True)


def test_a_cancel_that_a_builder_did_not_hear_counts_after_it(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.builder.gates["main"], made.builder.deaf = asyncio.Event(), True
        job = made.world.accept_push()
        await made.start(job)
        await made.until(lambda: made.builder.started, bool)
        await made.client.get_workflow_handle(job.id).cancel()
        await made.ended(job)
        assert set(ends(made, job)) == {"canceled"}
        assert made.host.placing == []

    run_story(tmp_path, story)


class Outage:
    """A database that is away for what is called through it, until a test says that it is back."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self.work = work
        self.asked = 0
        self.over = threading.Event()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.asked += 1
        if not self.over.is_set():
            raise ConnectionError("the database is away")
        return self.work(*args, **kwargs)


@pytest.mark.parametrize(
    ("what", "room", "step"),
    [
        ("build", activities.builds, "fail_build"),
        ("push", activities.rollouts, "end_rollout"),
        ("roll", activities.rollouts, "end_rollout"),
        ("exec", activities.environments, "end_job"),
    ],
)
def test_a_cancel_does_not_cut_off_what_says_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, room: Any, step: str
) -> None:
    """Of an activity that is to end Temporal makes no other try: the row would be open, and end as lost."""
    away = Outage(getattr(room, step))
    monkeypatch.setattr(room, step, away)

    async def story(made: Engine) -> None:
        made.builder.broken["main"] = made.host.refuse = "build.step_failed"
        assert made.executor is not None
        made.executor.broken = "build.step_failed"
        job = ACCEPTED[what](made.world)
        await made.start(job)
        await made.until(lambda: away.asked, bool)
        run = made.client.get_workflow_handle(job.id)
        await run.cancel()
        await asyncio.sleep(1)
        away.over.set()
        ended = await made.ended(job)
        assert (ended.status, (ended.error or {})["code"]) == ("failed", "build.step_failed")

    run_story(tmp_path, story, reconcile=True)


def test_a_cancel_does_not_cut_off_the_end_of_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = Outage(activities.commands.end_command)
    monkeypatch.setattr(activities.commands, "end_command", away)

    async def story(made: Engine) -> None:
        await made.run(made.world.accept_roll(made.world.artifact("a" * 64, "dynamic")))
        job = made.world.accept_command()
        await made.start(job)
        await made.until(lambda: away.asked, bool)
        await made.client.get_workflow_handle(job.id).cancel()
        # A local step is canceled with the workflow task that comes after the cancel.
        await asyncio.sleep(10)
        away.over.set()
        ended = await made.ended(job)
        assert (ended.status, (ended.result or {})["exit_code"]) == ("succeeded", 3)

    run_story(tmp_path, story, reconcile=True)


@pytest.mark.parametrize("what", ["protect", "delete"])
def test_a_cancel_does_not_cut_off_the_last_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """The row would have changed, under a job that was canceled."""
    away = Outage(activities.environments.end_job)
    monkeypatch.setattr(activities.environments, "end_job", away)

    async def story(made: Engine) -> None:
        world = made.world.beside("preview-1")
        with made.store.write() as session:
            site, env = session.get_one(Site, world.site_id), session.get_one(Environment, world.env_id)
            lock = what == "protect"
            job = accept_lock(session, site, env, None, {}) if lock else accept_deletion(session, site, env, {})
        await made.start(job)
        await made.until(lambda: away.asked, bool)
        await made.client.get_workflow_handle(job.id).cancel()
        await asyncio.sleep(1)
        away.over.set()
        assert (await made.ended(job)).status == "succeeded"
        with made.store.read() as session:
            assert session.get_one(Environment, world.env_id).status == ("active" if lock else "gone")

    run_story(tmp_path, story, reconcile=True)
