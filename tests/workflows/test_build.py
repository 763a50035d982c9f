"""Build: one end, with the stage and the code of what went wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path

from temporalio.client import WorkflowExecutionStatus

from store.models import Build, Job, utcnow
from tests.workflows.engine import Engine, run_story


def test_a_build_ends_with_its_artifact(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        job = await made.run(made.world.accept_build())
        assert job.status == "succeeded"
        assert job.result is not None
        assert job.result["artifact_id"].startswith("art_")
        assert job.progress == 100
        description = await made.client.get_workflow_handle(job.id).describe()
        assert description.workflow_type == "Build"
        assert description.typed_search_attributes.search_attributes

    run_story(tmp_path, story)


def test_what_an_earlier_build_has_made_is_not_signed_again(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        first = await made.run(made.world.accept_build())
        assert first.result is not None
        artifact = first.result["artifact_id"]
        job = made.world.accept_build()
        # As the broker does when the builder hands it in.
        with made.store.write() as session:
            session.get_one(Build, job.resource_id).artifact_id = artifact
        made.builder.earlier["main"] = artifact
        again = await made.run(job)
        assert again.status == "succeeded"
        assert again.result is not None
        assert again.result["artifact_id"] == artifact
        history = await made.client.get_workflow_handle(job.id).fetch_history()
        scheduled = [event.activity_task_scheduled_event_attributes.activity_type.name for event in history.events]
        assert [name for name in scheduled if name] == ["build.produce"]

    run_story(tmp_path, story)


def test_a_broken_build_names_its_stage_and_code(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.builder.broken["main"] = "build.step_failed"
        job = await made.run(made.world.accept_build())
        assert (job.status, job.error) == (
            "failed",
            {"code": "build.step_failed", "message": "the build broke", "stage": "build", "exit_code": 3},
        )
        with made.store.read() as session:
            assert session.get_one(Build, job.resource_id).status == "failed"

    run_story(tmp_path, story)


def test_a_cancel_reaches_the_running_build(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.builder.gates["main"] = asyncio.Event()
        job = made.world.accept_build()
        await made.start(job)
        await made.until(lambda: made.builder.started, lambda started: started)
        await made.starts.cancel(job.id)
        ended = await made.ended(job)
        assert ended.status == "canceled"
        assert ended.error is not None
        assert ended.error["code"] == "job.canceled"
        assert made.builder.canceled == ["main"]

    run_story(tmp_path, story)


def test_a_canceled_queued_job_never_starts(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        job = made.world.accept_build()
        with made.store.write() as session:
            row = session.get_one(Job, job.id)
            row.status, row.finished_at = "canceled", utcnow()
        await made.start(job)
        handle = made.client.get_workflow_handle(job.id)
        await made.until(lambda: None, lambda _: True)
        description = await handle.describe()
        while description.status is WorkflowExecutionStatus.RUNNING:
            await asyncio.sleep(0.03)
            description = await handle.describe()
        assert description.status is WorkflowExecutionStatus.FAILED
        assert made.builder.started == []
        assert made.world.job(job.id).status == "canceled"

    run_story(tmp_path, story)


def test_a_second_start_of_the_same_job_is_the_same_run(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.builder.gates["main"] = asyncio.Event()
        job = made.world.accept_build()
        await asyncio.gather(*(made.start(job) for _ in range(8)))
        await made.until(lambda: made.builder.started, lambda started: started)
        made.builder.gates["main"].set()
        assert (await made.ended(job)).status == "succeeded"
        await made.start(job)
        assert made.builder.started == ["main"]

    run_story(tmp_path, story)


def test_a_terminated_run_is_settled_as_lost(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.builder.gates["main"] = asyncio.Event()
        job = made.world.accept_build()
        await made.start(job)
        await made.until(lambda: made.builder.started, lambda started: started)
        await made.client.get_workflow_handle(job.id).terminate("an operator's hand")
        ended = await made.ended(job)
        assert ended.status == "failed"
        assert ended.error is not None
        assert ended.error["code"] == "job.lost"

    run_story(tmp_path, story, reconcile=True)
