"""Rollouts: ordered, fenced, one release or none; what is live stays live until the switch."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlmodel import col, select
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import WorkflowFailureError

from store.models import Job, Release, Rollout, utcnow
from tests.workflows.engine import Engine, run_story


def releases(made: Engine) -> list[Release]:
    with made.store.read() as session:
        return list(session.exec(select(Release).order_by(col(Release.seq))).all())


def test_a_rollout_ends_in_one_current_release(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        artifact = made.world.artifact("a" * 64)
        job = await made.run(made.world.accept_roll(artifact))
        assert job.status == "succeeded"
        [release] = releases(made)
        assert (release.artifact_id, release.seq, release.current) == (artifact, 1, True)
        assert job.result == {
            "deployment_id": job.resource_id,
            "release_id": release.id,
            "env_id": made.world.env_id,
            "artifact_id": artifact,
            "url": "http://acme.localhost:7071",
        }
        assert made.host.live == 1
        description = await made.client.get_workflow_handle(job.id).describe()
        assert description.workflow_type == "Roll"

    run_story(tmp_path, story)


def test_rollouts_of_one_environment_go_in_the_order_of_acceptance(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        jobs = [made.world.accept_roll(made.world.artifact(f"{n:064d}")) for n in range(6)]
        await asyncio.gather(*(made.start(job) for job in reversed(jobs)))
        ended = [await made.ended(job) for job in jobs]
        assert [job.status for job in ended] == ["succeeded"] * 6
        assert made.host.placing == [job.resource_id for job in jobs]
        assert [r.rollout_id for r in releases(made)] == [job.resource_id for job in jobs]
        assert [r.current for r in releases(made)] == [False] * 5 + [True]
        assert made.host.history == sorted(made.host.history)

    run_story(tmp_path, story)


def test_a_refused_artifact_leaves_what_is_live(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        await made.run(made.world.accept_roll(made.world.artifact("a" * 64)))
        made.host.refuse = "artifact.signature_invalid"
        job = await made.run(made.world.accept_roll(made.world.artifact("b" * 64)))
        assert (job.status, (job.error or {})["code"]) == ("failed", "artifact.signature_invalid")
        assert (job.error or {})["stage"] == "verify"
        assert made.host.live == 1
        assert len(releases(made)) == 1
        made.host.refuse = None
        again = await made.run(made.world.accept_roll(made.world.artifact("c" * 64)))
        assert again.status == "succeeded"

    run_story(tmp_path, story)


def test_a_rollback_goes_ahead_of_the_queue_and_of_what_has_not_switched(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        first = made.world.artifact("a" * 64)
        await made.run(made.world.accept_roll(first))
        made.host.place_gate = asyncio.Event()
        slow = made.world.accept_roll(made.world.artifact("b" * 64))
        await made.start(slow)
        await made.until(lambda: made.host.placing, lambda placing: slow.resource_id in placing)
        waiting = made.world.accept_roll(made.world.artifact("c" * 64))
        await made.start(waiting)
        back = made.world.accept_roll(first, kind="rollback")
        await made.start(back)
        assert (await made.ended(slow)).status == "canceled"
        made.host.place_gate.set()
        assert (await made.ended(back)).status == "succeeded"
        assert (await made.ended(waiting)).status == "succeeded"
        order = [r.rollout_id for r in releases(made)]
        assert order.index(back.resource_id) < order.index(waiting.resource_id)

    run_story(tmp_path, story)


def test_a_cancel_before_the_switch_wins_and_after_it_loses(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.host.place_gate = asyncio.Event()
        early = made.world.accept_roll(made.world.artifact("a" * 64))
        await made.start(early)
        await made.until(lambda: made.host.placing, lambda placing: placing)
        with made.store.write() as session:
            session.get_one(Job, early.id).cancel_requested_at = utcnow()
        await made.starts.cancel(early.id)
        assert (await made.ended(early)).status == "canceled"
        assert made.host.live == 0

        made.host.place_gate, made.host.switch_gate = None, asyncio.Event()
        late = made.world.accept_roll(made.world.artifact("b" * 64))
        await made.start(late)
        await made.until(lambda: made.host.switching, lambda switching: switching)
        await made.starts.cancel(late.id)
        made.host.switch_gate.set()
        assert (await made.ended(late)).status == "succeeded"
        assert [r.rollout_id for r in releases(made)] == [late.resource_id]

    run_story(tmp_path, story)


def test_a_rollout_terminated_after_its_switch_is_recorded_by_what_is_live(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        gate = made.host.switch_gate = asyncio.Event()
        job = made.world.accept_roll(made.world.artifact("a" * 64))
        await made.start(job)
        await made.until(lambda: made.host.switching, lambda switching: switching)
        made.host.live = made.host.fenced = 1  # the switch is done, its answer never arrives
        await made.client.get_workflow_handle(job.id).terminate("an operator's hand")
        ended = await made.ended(job)
        assert ended.status == "succeeded"
        assert [r.seq for r in releases(made)] == [1]
        gate.set()

    run_story(tmp_path, story, reconcile=True)


def test_a_rollout_terminated_before_its_switch_is_lost_and_fenced(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        gate = made.host.switch_gate = asyncio.Event()
        job = made.world.accept_roll(made.world.artifact("a" * 64))
        await made.start(job)
        await made.until(lambda: made.host.switching, lambda switching: switching)
        await made.client.get_workflow_handle(job.id).terminate("an operator's hand")
        ended = await made.ended(job)
        assert (ended.status, (ended.error or {})["code"]) == ("failed", "job.lost")
        gate.set()  # the frozen worker wakes: its number is fenced off
        await made.run(made.world.accept_roll(made.world.artifact("b" * 64)))
        assert made.host.history == [3]
        assert [r.seq for r in releases(made)] == [3]

    run_story(tmp_path, story, reconcile=True)


def test_terminating_what_waits_loses_nothing(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.host.place_gate = asyncio.Event()
        jobs = [made.world.accept_roll(made.world.artifact(f"{n:064d}")) for n in range(3)]
        for job in jobs:
            await made.start(job)
        await made.until(lambda: made.host.placing, lambda placing: placing)
        for job in jobs[1:]:
            await made.client.get_workflow_handle(job.id).terminate("by hand")
        made.host.place_gate.set()
        assert [(await made.ended(job)).status for job in jobs] == ["succeeded"] * 3
        assert [r.rollout_id for r in releases(made)] == [job.resource_id for job in jobs]

    run_story(tmp_path, story, reconcile=True)


def status_of(made: Engine, job: Job) -> str:
    with made.store.read() as session:
        return session.get_one(Rollout, job.resource_id).status


def test_a_push_terminated_in_its_queue_is_rolled_in_its_turn_without_a_second_build(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.host.place_gate = asyncio.Event()
        first, push = made.world.accept_roll(made.world.artifact("a" * 64)), made.world.accept_push()
        await made.start(first)
        await made.until(lambda: made.host.placing, lambda placing: placing)
        await made.start(push)
        await made.until(lambda: status_of(made, push), lambda status: status == "queued")
        await made.client.get_workflow_handle(push.id).terminate("by hand")
        made.host.place_gate.set()
        assert [(await made.ended(job)).status for job in (first, push)] == ["succeeded"] * 2
        assert made.builder.started == ["main"]
        assert [r.rollout_id for r in releases(made)] == [first.resource_id, push.resource_id]

    run_story(tmp_path, story, reconcile=True)


def test_resetting_a_finished_run_doubles_no_release(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        job = await made.run(made.world.accept_roll(made.world.artifact("a" * 64)))
        handle = made.client.get_workflow_handle(job.id)
        await handle.result()
        run_id = (await handle.describe()).run_id
        await made.client.workflow_service.reset_workflow_execution(
            ResetWorkflowExecutionRequest(
                namespace=made.client.namespace,
                workflow_execution=WorkflowExecution(workflow_id=job.id, run_id=run_id),
                reason="an operator's hand",
                workflow_task_finish_event_id=4,
                request_id="reset-1",
            )
        )
        with pytest.raises(WorkflowFailureError):  # the row has ended: the second run fails, and changes nothing
            await made.client.get_workflow_handle(job.id).result()
        assert [r.seq for r in releases(made)] == [1]
        assert made.world.job(job.id).status == "succeeded"
        assert made.host.live == 1

    run_story(tmp_path, story)


def test_a_cancel_from_the_temporal_ui_past_the_gate_changes_nothing(tmp_path: Path) -> None:
    """Not even where the switch has to be tried again, which Temporal does not do for who was canceled."""

    async def story(made: Engine) -> None:
        made.host.switch_gate, made.host.stumbles = asyncio.Event(), 1
        job = made.world.accept_roll(made.world.artifact("a" * 64))
        await made.start(job)
        await made.until(lambda: made.host.switching, bool)
        await made.client.get_workflow_handle(job.id).cancel()
        made.host.switch_gate.set()
        ended = await made.ended(job)
        assert (ended.status, ended.error) == ("succeeded", None)
        assert made.host.live == 1
        assert [release.seq for release in releases(made)] == [1]

    run_story(tmp_path, story)


def test_a_run_that_was_never_started_is_started(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        job = made.world.accept_roll(made.world.artifact("a" * 64))
        assert (await made.ended(job)).status == "succeeded"
        with made.store.read() as session:
            assert session.get_one(Rollout, job.resource_id).status == "succeeded"

    run_story(tmp_path, story, reconcile=True)
