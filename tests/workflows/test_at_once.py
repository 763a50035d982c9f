"""A rollout that its only host takes up by itself: the same rows and numbers, however it goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlmodel import col, select
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import CancelledError

from store.jobs import cancel_job
from store.models import Build, Environment, Job, Release, Rollout
from tests.workflows.engine import Engine, run_story


def releases(made: Engine) -> list[Release]:
    with made.store.read() as session:
        return list(session.exec(select(Release).order_by(col(Release.seq))).all())


async def steps(made: Engine, job: Job) -> list[str]:
    """The activities of a run, in their order, those of the rows as markers."""
    run = made.client.get_workflow_handle(job.id)
    await run.result()
    history = await run.fetch_history()
    found = []
    for event in history.events:
        if event.HasField("activity_task_scheduled_event_attributes"):
            found.append(event.activity_task_scheduled_event_attributes.activity_type.name)
        if event.HasField("marker_recorded_event_attributes"):
            found.append("rows")
    return found


@pytest.mark.parametrize("kind", ["deploy", "promote", "rollback"])
def test_it_asks_for_no_turn(tmp_path: Path, kind: str) -> None:
    async def story(made: Engine) -> None:
        made.at_once = "local"
        job = await made.run(made.world.accept_roll(made.world.artifact("a" * 64), kind))
        assert job.status == "succeeded"
        [release] = releases(made)
        assert (release.rollout_id, release.seq, release.current, made.host.live) == (job.resource_id, 1, True, 1)
        assert await steps(made, job) == ["host.take", "rows"]
        assert (job.started_at, job.committed_at) != (None, None)

    run_story(tmp_path, story)


def test_a_push_is_taken_up_once_it_is_built(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.at_once = "local"
        job = await made.run(made.world.accept_push())
        assert job.status == "succeeded"
        assert await steps(made, job) == ["rows", "build.produce", "build.sign", "host.take", "rows"]
        with made.store.read() as session:
            assert [build.status for build in session.exec(select(Build))] == ["succeeded"]
            assert session.get_one(Rollout, job.resource_id).artifact_id == releases(made)[0].artifact_id

    run_story(tmp_path, story)


def test_a_push_that_comes_late_ends_superseded(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.at_once = "local"
        made.builder.gates["slow"] = asyncio.Event()
        slow, fast = made.world.accept_push("slow"), made.world.accept_push("fast")
        await made.start(slow)
        await made.until(lambda: made.builder.started, lambda started: "slow" in started)
        assert (await made.run(fast)).status == "succeeded"
        made.builder.gates["slow"].set()
        ended = await made.ended(slow)
        assert (ended.status, (ended.error or {})["code"]) == ("canceled", "job.superseded")
        assert [release.rollout_id for release in releases(made)] == [fast.resource_id]

    run_story(tmp_path, story)


def test_what_is_not_next_waits_for_its_turn_as_ever(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.at_once = "local"
        made.host.place_gate = asyncio.Event()
        jobs = [made.world.accept_roll(made.world.artifact(f"{n:064d}")) for n in range(3)]
        await made.start(jobs[0])
        await made.until(lambda: made.host.placing, lambda placing: placing)
        for job in jobs[:0:-1]:
            await made.start(job)
        await made.until(lambda: made.host.asked, lambda asked: len(asked) == 3)
        made.host.place_gate.set()
        assert [(await made.ended(job)).status for job in jobs] == ["succeeded"] * 3
        assert [one.rollout_id for one in releases(made)] == [job.resource_id for job in jobs]
        assert made.host.history == sorted(made.host.history)

    run_story(tmp_path, story)


def test_a_verdict_is_found_once(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.at_once = "local"
        made.host.refuse = "artifact.signature_invalid"
        job = await made.run(made.world.accept_roll(made.world.artifact("a" * 64)))
        assert (job.status, (job.error or {})["code"]) == ("failed", "artifact.signature_invalid")
        assert (job.error or {})["stage"] == "verify"
        assert made.host.placing == [job.resource_id], "and not looked for again"
        assert (releases(made), made.host.live) == ([], 0)
        await made.until(lambda: made.host.fenced, lambda fenced: fenced == 2)
        made.host.refuse = None
        assert (await made.run(made.world.accept_roll(made.world.artifact("b" * 64)))).status == "succeeded"

    run_story(tmp_path, story)


def test_what_breaks_off_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.at_once, made.host.breaks = "local", 1
        job = await made.run(made.world.accept_roll(made.world.artifact("a" * 64), "rollback"))
        assert job.status == "succeeded"
        assert await steps(made, job) == ["host.take", "rows", "host.roll", "rows"]
        assert (made.host.placing, made.host.history) == ([job.resource_id] * 2, [1])

    run_story(tmp_path, story)


@pytest.mark.parametrize("host", ["away", "local"])
def test_a_host_that_does_not_take_it_up_is_waited_for_by_the_rollout_itself(tmp_path: Path, host: str) -> None:
    async def story(made: Engine) -> None:
        made.at_once = host
        if host == "local":
            made.host.turn = lambda _: None
        job = await made.run(made.world.accept_roll(made.world.artifact("a" * 64)))
        assert job.status == "succeeded"
        assert await steps(made, job) == ["host.take", "rows", "host.roll", "rows"]

    run_story(tmp_path, story)


def test_a_cancel_ends_it_before_the_switch(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.at_once = "local"
        made.host.place_gate = asyncio.Event()
        job = made.world.accept_roll(made.world.artifact("a" * 64))
        await made.start(job)
        await made.until(lambda: made.host.placing, lambda placing: placing)
        with made.store.write() as session:
            cancel_job(session, session.get_one(Job, job.id))
        await made.starts.cancel(job.id)
        assert (await made.ended(job)).status == "canceled"
        assert (made.host.live, made.host.placing, releases(made)) == (0, [job.resource_id], [])

    run_story(tmp_path, story)


@pytest.mark.parametrize("at_once", ["local", ""])
@pytest.mark.parametrize("by", ["job", "operator"])
def test_a_cancel_that_meets_a_failing_try_is_a_cancel(tmp_path: Path, at_once: str, by: str) -> None:
    """Temporal makes no other try of what was canceled, and ends it with what the last one met."""

    async def story(made: Engine) -> None:
        made.at_once = at_once
        made.host.place_gate, made.host.deaf = asyncio.Event(), True
        job = made.world.accept_roll(made.world.artifact("a" * 64))
        await made.start(job)
        await made.until(lambda: made.host.placing, lambda placing: placing)
        if by == "job":
            with made.store.write() as session:
                cancel_job(session, session.get_one(Job, job.id))
        await made.client.get_workflow_handle(job.id).cancel()
        ended = await made.ended(job)
        assert (ended.status, (ended.error or {}).get("code")) == ("canceled", "job.canceled")
        assert (made.host.live, made.host.placing, releases(made)) == (0, [job.resource_id], [])
        with pytest.raises(WorkflowFailureError) as caught:
            await made.client.get_workflow_handle(job.id).result()
        assert isinstance(caught.value.cause, CancelledError)

    run_story(tmp_path, story)


def test_a_cancel_that_comes_first_leaves_nothing_to_take(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.at_once = "local"
        job = made.world.accept_roll(made.world.artifact("a" * 64))
        with made.store.write() as session:
            cancel_job(session, session.get_one(Job, job.id))
        await made.start(job)
        assert (await made.ended(job)).status == "canceled"
        assert made.host.placing == []

    run_story(tmp_path, story)


def test_an_operators_cancel_ends_what_was_not_to_be_taken(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.at_once = "local"
        made.host.place_gate = asyncio.Event()
        first, second = (made.world.accept_roll(made.world.artifact(seal * 64)) for seal in "ab")
        await made.start(first)
        await made.until(lambda: made.host.placing, lambda placing: placing)
        made.at_once = "away"  # nobody has it in hand when the cancel comes
        await made.start(second)
        await made.client.get_workflow_handle(second.id).cancel()
        assert (await made.ended(second)).status == "canceled"
        assert made.world.job(first.id).status == "running", "and whose turn it is goes on"
        made.host.place_gate.set()
        assert (await made.ended(first)).status == "succeeded"

    run_story(tmp_path, story)


@pytest.mark.parametrize("at_once", ["local", ""])
def test_an_operators_cancel_past_the_gate_changes_nothing(tmp_path: Path, at_once: str) -> None:
    async def story(made: Engine) -> None:
        made.at_once, made.host.ready, made.host.place_gate = at_once, True, asyncio.Event()
        job = made.world.accept_roll(made.world.artifact("a" * 64))
        await made.start(job)
        await made.until(lambda: made.host.placing, lambda placing: placing)
        await made.client.get_workflow_handle(job.id).cancel()
        await made.until(lambda: made.host.placing, lambda placing: len(placing) == 2)
        made.host.place_gate.set()
        assert (await made.ended(job)).status == "succeeded"
        assert ([one.seq for one in releases(made)], made.host.live) == ([1], 1)

    run_story(tmp_path, story)


def test_a_rollback_goes_ahead_of_what_was_taken_and_has_not_switched(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.at_once = "local"
        artifact = made.world.artifact("a" * 64)
        await made.run(made.world.accept_roll(artifact))
        made.host.place_gate = asyncio.Event()
        slow = made.world.accept_roll(made.world.artifact("b" * 64))
        await made.start(slow)
        await made.until(lambda: made.host.placing, lambda placing: slow.resource_id in placing)
        back = made.world.accept_roll(artifact, "rollback")
        await made.start(back)
        assert (await made.ended(slow)).status == "canceled"
        made.host.place_gate.set()
        assert (await made.ended(back)).status == "succeeded"
        assert [one.rollout_id for one in releases(made)][1:] == [back.resource_id]

    run_story(tmp_path, story)


def test_a_release_that_is_watched_takes_the_longer_way(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.at_once = "local"
        with made.store.write() as session:
            session.get_one(Environment, made.world.env_id).bake_seconds = 60
        job = await made.run(made.world.accept_roll(made.world.artifact("a" * 64)))
        assert (job.status, made.host.baking) == ("succeeded", [job.resource_id])
        back = await made.run(made.world.accept_roll(made.world.artifact("b" * 64), "rollback"))
        assert await steps(made, back) == ["host.take", "rows"]

    run_story(tmp_path, story)


def test_a_run_that_was_terminated_is_settled_by_what_is_live(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.at_once = "local"
        made.host.switch_gate = asyncio.Event()
        job = made.world.accept_roll(made.world.artifact("a" * 64))
        await made.start(job)
        await made.until(lambda: made.host.switching, lambda switching: switching)
        await made.client.get_workflow_handle(job.id).terminate("by an operator")
        made.host.switch_gate.set()
        ended = await made.ended(job)
        live = made.host.live
        assert (ended.status, [one.seq for one in releases(made)]) == (("succeeded", [1]) if live else ("failed", []))

    run_story(tmp_path, story, reconcile=True)
