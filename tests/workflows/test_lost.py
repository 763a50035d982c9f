"""Runs that are lost between two lines of ours: the job goes on, or ends once by what is live."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from sqlmodel import select
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest

from activities.reconcile import MOST_LOST, Reconciler, some
from store import queue
from store.models import Environment, Release, Rollout, utcnow
from temporal import names
from temporal.messages import JobRef, Suspects
from tests.workflows.engine import Engine, run_story

NOBODY = "nobody-polls-this"


def test_a_run_that_was_ended_before_it_claimed_its_row_is_started_again(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        job = made.world.accept_build()
        early = await made.client.start_workflow(names.BUILD, JobRef(job.id), id=job.id, task_queue=NOBODY)
        await early.terminate("an operator's hand, while the control worker was away")
        assert (await made.run(job)).status == "succeeded"
        assert made.builder.started == ["main"]

    run_story(tmp_path, story)


def test_a_claimed_rollout_that_temporal_has_forgotten_is_started_again(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        job = made.world.accept_roll(made.world.artifact("a" * 64))
        with made.store.write() as session:
            rollout = queue.claim_turn(session, job.id)
            rollout.started_at = utcnow() - timedelta(minutes=1)
        assert await Reconciler(made.store, made.client).suspects() == Suspects()
        assert (await made.ended(job)).status == "succeeded"

    run_story(tmp_path, story)


def test_a_terminated_rollback_still_goes_first(tmp_path: Path) -> None:
    """Its run is gone before it could say so: whoever looks next lets it go ahead."""

    async def story(made: Engine) -> None:
        made.host.place_gate = asyncio.Event()
        slow = made.world.accept_roll(made.world.artifact("a" * 64))
        await made.start(slow)
        await made.until(lambda: made.host.placing, lambda placing: placing)
        waiting = made.world.accept_roll(made.world.artifact("b" * 64))
        await made.start(waiting)
        back = made.world.accept_roll(made.world.artifact("c" * 64), kind="rollback")
        early = await made.client.start_workflow(names.ROLLBACK, JobRef(back.id), id=back.id, task_queue=NOBODY)
        await early.terminate("an operator's hand, while the control worker was away")
        made.host.place_gate.set()
        assert (await made.ended(back)).status == "succeeded"
        assert (await made.ended(waiting)).status == "succeeded"
        assert made.host.placing.index(back.resource_id) < made.host.placing.index(waiting.resource_id)

    run_story(tmp_path, story, reconcile=True)


def test_a_host_that_is_away_keeps_no_other_lost_job_waiting(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.builder.gates["main"] = asyncio.Event()
        build = made.world.accept_build()
        await made.start(build)
        await made.until(lambda: made.builder.started, lambda started: started)
        with made.store.write() as session:
            session.get_one(Environment, made.world.env_id).hosts = ["away"]
        roll = made.world.accept_roll(made.world.artifact("a" * 64))
        await made.start(roll)
        await made.until(lambda: made.world.job(roll.id).status, lambda status: status == "running")
        for run in (roll.id, build.id):
            await made.client.get_workflow_handle(run).terminate("by hand")
        ended = await made.ended(build)
        assert (ended.status, (ended.error or {})["code"]) == ("failed", "job.lost")
        assert made.world.job(roll.id).finished_at is None

    run_story(tmp_path, story, reconcile=True)


def test_a_reset_push_neither_builds_again_nor_ends_what_is_switching(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        gate = made.host.switch_gate = asyncio.Event()
        job = made.world.accept_push()
        await made.start(job)
        await made.until(lambda: made.host.switching, lambda switching: switching)
        made.builder.broken["main"] = "attempt.stale"  # what the broker says of a build that has ended
        run_id = (await made.client.get_workflow_handle(job.id).describe()).run_id
        await made.client.workflow_service.reset_workflow_execution(
            ResetWorkflowExecutionRequest(
                namespace=made.client.namespace,
                workflow_execution=WorkflowExecution(workflow_id=job.id, run_id=run_id),
                reason="an operator's hand",
                workflow_task_finish_event_id=4,
                request_id="reset-1",
            )
        )
        await made.until(lambda: len(made.host.placing), lambda placed: placed == 2)  # the new run has come as far
        gate.set()
        assert (await made.ended(job)).status == "succeeded"
        assert made.builder.started == ["main"]
        with made.store.read() as session:
            assert [r.rollout_id for r in session.exec(select(Release)).all()] == [job.resource_id]
            assert session.get_one(Rollout, job.resource_id).status == "succeeded"
        assert made.host.live == 1

    run_story(tmp_path, story)


def test_what_is_lost_at_once_is_ended_in_parts_of_which_none_is_left_out_for_ever() -> None:
    assert some(["a", "b"]) == ("a", "b")
    lost = [str(number) for number in range(MOST_LOST + 1)]
    looks = [some(lost) for _ in range(100)]
    assert {len(set(look)) for look in looks} == {MOST_LOST}
    assert {one for look in looks for one in look} == set(lost)
