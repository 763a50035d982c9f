"""Several hosts: one release on all of them or none; who is away fails the rollout or catches up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlmodel import select

from store.hosts import register_host
from store.models import Environment, Job, Rollout, Site, utcnow
from store.models_configuration import Host as HostRow
from store.models_lifecycle import Drift
from store.protection import accept_lock
from store.sites import accept_deletion
from temporal.worker import host_roles
from temporal.worker import working as serving
from tests.workflows.doubles import Host
from tests.workflows.engine import Engine, run_story


@asynccontextmanager
async def working(made: Engine, host: Host) -> AsyncIterator[None]:
    acts = [host.prepare, host.switch, host.undo, host.bake, host.tell, host.fence, host.retire, host.route]
    async with serving(made.client, host_roles(host.host_id, acts)):
        yield


def spread(made: Engine, away: str = "fail") -> None:
    """The environment is on two hosts, both known."""
    with made.store.write() as session:
        environment = session.get_one(Environment, made.world.env_id)
        environment.hosts, environment.away = ["local", "second"], away
        for name in environment.hosts:
            register_host(session, name, "k")


def accept(made: Engine, letter: str) -> Job:
    return made.world.accept_roll(made.world.artifact(letter * 64))


def rollout_of(made: Engine, job: Job) -> Rollout:
    with made.store.read() as session:
        return session.get_one(Rollout, job.resource_id)


def accept_password(made: Engine) -> Job:
    with made.store.write() as session:
        site, env = session.get_one(Site, made.world.site_id), session.get_one(Environment, made.world.env_id)
        return accept_lock(session, site, env, None, {})


def test_a_host_that_is_away_keeps_no_other_from_a_change_of_names_or_password(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        spread(made, "skip")
        with made.store.write() as session:
            session.get_one(Environment, made.world.env_id).hosts = ["second", "local"]
        done = await made.run(accept_password(made))
        assert (done.status, (done.result or {})["hosts_away"]) == ("succeeded", ["second"])
        assert made.host.routed == [made.world.env_id]
        async with working(made, Host(host_id="second")):
            done = await made.run(accept_password(made))
            assert "hosts_away" not in (done.result or {})

    run_story(tmp_path, story)


@pytest.mark.slow
def test_where_nothing_else_was_said_it_fails_the_change_which_the_others_have(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        spread(made)
        with made.store.write() as session:
            session.get_one(Environment, made.world.env_id).hosts = ["second", "local"]
        failed = await made.run(accept_password(made))
        assert (failed.status, (failed.error or {})["code"]) == ("failed", "host.away")
        assert "second" in (failed.error or {})["message"]
        assert made.host.routed == [made.world.env_id]

    run_story(tmp_path, story)


def test_all_hosts_switch_or_none(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        spread(made)
        other = Host(host_id="second")
        async with working(made, other):
            assert (await made.run(accept(made, "a"))).status == "succeeded"
            assert (made.host.live, other.live) == (1, 1)
            assert made.host.leaders == other.leaders == ["local"]
            other.refuse = "roll.health_failed"
            job = await made.run(accept(made, "b"))
            assert (job.status, (job.error or {})["code"]) == ("failed", "roll.health_failed")
            assert (made.host.history, other.history) == ([1], [1])
            other.refuse, other.refuse_switch = None, "roll.verify_failed"
            job = await made.run(accept(made, "c"))
            assert (job.status, (job.error or {})["code"]) == ("failed", "roll.verify_failed")
            assert (made.host.live, other.live) == (1, 1)
            assert made.host.history == [1, 5, 1]

    run_story(tmp_path, story)


@pytest.mark.slow
def test_a_host_that_is_away_fails_a_rollout_where_nothing_else_was_said(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        spread(made)
        job = await made.run(accept(made, "a"))
        assert (job.status, (job.error or {})["code"]) == ("failed", "host.away")
        assert "second" in (job.error or {})["message"]
        assert made.host.history == []

    run_story(tmp_path, story)


def test_a_host_that_is_skipped_catches_up_by_itself_once_it_is_seen(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        spread(made, "skip")
        job = await made.run(accept(made, "a"))
        assert (job.status, (job.result or {})["hosts_away"]) == ("succeeded", ["second"])
        other = Host(host_id="second")
        async with working(made, other):
            with made.store.write() as session:
                assert [one.mended_at for one in session.exec(select(Drift))] == [None]
                assert other.live == 0
                session.get_one(HostRow, "second").last_seen_at = utcnow()
            await made.until(lambda: other.live, bool)
            await made.until(lambda: drifts(made), lambda found: all(one.mended_at for one in found))
        [drift] = drifts(made)
        assert drift.kind == "host"
        with made.store.read() as session:
            caught_up = session.exec(select(Rollout).where(Rollout.kind == "repair")).one()
            assert (caught_up.status, caught_up.job_id) == ("succeeded", drift.job_id)
        assert made.host.live == other.live == caught_up.apply_seq

    run_story(tmp_path, story, reconcile=True)


def drifts(made: Engine) -> list[Drift]:
    with made.store.read() as session:
        return list(session.exec(select(Drift)).all())


@pytest.mark.slow
def test_a_lost_run_on_several_hosts_is_put_back_on_all(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        spread(made)
        other = Host(host_id="second")
        async with working(made, other):
            assert (await made.run(accept(made, "a"))).status == "succeeded"
            other.switch_gate = asyncio.Event()
            job = accept(made, "b")
            await made.start(job)
            await made.until(lambda: (made.host.live, other.switching), lambda seen: seen[0] == 3 and len(seen[1]) == 2)
            await made.client.get_workflow_handle(job.id).terminate("by hand")
            ended = await made.ended(job)
            assert (ended.status, (ended.error or {})["code"]) == ("failed", "job.lost")
            assert (made.host.live, other.live) == (1, 1)
            other.switch_gate.set()
            await made.until(lambda: rollout_of(made, job).status, lambda status: status == "failed")
            assert other.live == 1

    run_story(tmp_path, story, reconcile=True)


def test_a_cancel_that_meets_a_failing_host_is_a_cancel(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        spread(made, "skip")
        other = Host(host_id="second", place_gate=asyncio.Event(), deaf=True)
        async with working(made, other):
            job = accept(made, "a")
            await made.start(job)
            await made.until(lambda: other.placing, bool)
            await made.client.get_workflow_handle(job.id).cancel()
            ended = await made.ended(job)
            assert (ended.status, (ended.error or {})["code"]) == ("canceled", "job.canceled")
            assert (made.host.live, other.live) == (0, 0)

    run_story(tmp_path, story)


def test_what_fails_is_named_and_not_whom_it_ended(tmp_path: Path) -> None:
    """The other host is told to stop, in the middle of what fails."""

    async def story(made: Engine) -> None:
        spread(made)
        with made.store.write() as session:
            session.get_one(Environment, made.world.env_id).hosts = ["local", "second", "third"]
            register_host(session, "third", "k")
        gate = asyncio.Event()
        second = Host(host_id="second", place_gate=asyncio.Event(), deaf=True)
        third = Host(host_id="third", place_gate=gate, refuse="roll.health_failed")
        async with working(made, second), working(made, third):
            job = accept(made, "a")
            await made.start(job)
            await made.until(lambda: second.placing and third.placing, bool)
            gate.set()
            ended = await made.ended(job)
            assert (ended.status, (ended.error or {})["code"]) == ("failed", "roll.health_failed")

    run_story(tmp_path, story)


@pytest.mark.slow
def test_hosts_are_left_at_once_and_who_is_away_is_waited_for_once(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        worlds = [made.world.beside(f"preview-{number}") for number in (1, 2)]
        with made.store.write() as session:
            for world in worlds:
                environment = session.get_one(Environment, world.env_id)
                environment.hosts, environment.away = ["second", "third", "local"], "skip"
            site = session.get_one(Site, made.world.site_id)
            job = accept_deletion(session, site, {})
        assert (await made.run(job)).status == "succeeded"
        with made.store.read() as session:
            assert {session.get_one(Environment, world.env_id).status for world in worlds} == {"gone"}
        history = await made.client.get_workflow_handle(job.id).fetch_history()
        asked = [
            event.activity_task_scheduled_event_attributes.task_queue.name.removeprefix("host/")
            for event in history.events
            if event.activity_task_scheduled_event_attributes.activity_type.name == "host.retire"
        ]
        assert sorted(asked) == ["local", "local", "local", "second", "third"]

    run_story(tmp_path, story)
