"""Held rollouts as runs: they wait outside of the queue, are told, survive their runs, and can be canceled."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlmodel import select

from activities.reconcile import Reconciler
from headway.policy import parse_policy
from store import approvals
from store.models import Environment, Job, Rollout, Site, utcnow
from store.models_policy import Decision
from store.policies import set_policy
from temporal.messages import Ahead, Suspects
from tests.workflows.engine import Engine, run_story

FROZEN = {"freezes": [{"start": "2020-01-01T00:00:00Z", "end": "2999-01-01T00:00:00Z", "reason": "the feast"}]}


def rule(made: Engine, document: dict) -> None:
    with made.store.write() as session:
        site = session.get_one(Site, made.world.site_id)
        environment = session.get_one(Environment, made.world.env_id)
        set_policy(session, site, environment, parse_policy(document), {"type": "test"})


async def held(made: Engine, job: Job) -> Job:
    await made.start(job)
    return await made.until(lambda: made.world.job(job.id), lambda row: row.waits_for is not None)


def judged(made: Engine) -> datetime:
    with made.store.read() as session:
        return session.exec(select(Decision)).one().judged_at.replace(tzinfo=UTC)


async def ring(made: Engine, job: Job) -> None:
    with made.store.read() as session:
        rollout = session.get_one(Rollout, job.resource_id)
    await made.starts.give_turn(Ahead(job.id, rollout.kind))


def test_a_rollback_passes_what_is_held_and_the_bell_lets_that_go(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        first = made.world.artifact("a" * 64)
        await made.run(made.world.accept_roll(first))
        rule(made, FROZEN)
        waiting = await held(made, made.world.accept_roll(made.world.artifact("b" * 64)))
        assert (waiting.status, waiting.stage) == ("queued", "hold")
        assert "the feast" in waiting.waits_for["reasons"][0]["message"]
        assert (await made.run(made.world.accept_roll(first, kind="rollback"))).status == "succeeded"
        assert made.world.job(waiting.id).finished_at is None
        rule(made, {})
        await ring(made, waiting)
        assert (await made.ended(waiting)).status == "succeeded"

    run_story(tmp_path, story)


def test_a_push_is_built_held_and_survives_the_loss_of_its_run(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        with made.store.write() as session:
            approvals.set_pin(session.get_one(Environment, made.world.env_id), {"type": "test"}, "a demo")
        job = await held(made, made.world.accept_push())
        assert job.status == "running"
        assert len(made.builder.started) == 1
        await made.client.get_workflow_handle(job.id).terminate("lost")
        long_ago = utcnow() - timedelta(days=3)
        with made.store.write() as session:
            session.get_one(Job, job.id).started_at = long_ago
        reconciler = Reconciler(made.store, made.client)
        assert await reconciler.suspects() == Suspects((), ())
        reconciler.lose_jobs(Suspects((job.id,), ()))
        assert made.world.job(job.id).finished_at is None
        # Nobody has looked at it for long: its run is started again.
        with made.store.write() as session:
            session.exec(select(Decision)).one().judged_at = long_ago
        watch = asyncio.create_task(reconciler.watch(every=0.1))
        await made.until(lambda: judged(made), lambda at: at > long_ago + timedelta(days=1))
        with made.store.write() as session:
            approvals.set_pin(session.get_one(Environment, made.world.env_id), None)
        await ring(made, job)
        assert (await made.ended(job)).status == "succeeded"
        watch.cancel()

    run_story(tmp_path, story)


def test_what_is_held_can_be_canceled_and_what_is_refused_ends(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        rule(made, FROZEN)
        job = await held(made, made.world.accept_roll(made.world.artifact("a" * 64)))
        await made.client.get_workflow_handle(job.id).cancel()
        ended = await made.ended(job)
        assert (ended.status, ended.waits_for) == ("canceled", None)
        rule(made, {"repositories": ["https://git.example.org/*"]})
        refused = await made.run(made.world.accept_roll(made.world.artifact("b" * 64)))
        assert (refused.status, (refused.error or {})["code"]) == ("failed", "policy.refused")

    run_story(tmp_path, story)
