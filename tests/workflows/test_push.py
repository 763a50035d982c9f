"""Push: build, then deploy, as one job; the order of acceptance decides, not the order in which builds end."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sqlmodel import select

from store.models import Build, Release, Rollout
from tests.workflows.engine import Engine, run_story


def test_a_push_ends_with_its_release(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        job = await made.run(made.world.accept_push())
        assert job.status == "succeeded"
        with made.store.read() as session:
            [release] = session.exec(select(Release)).all()
        assert job.result is not None
        assert job.result["release_id"] == release.id
        assert job.result["build_id"].startswith("build_")

    run_story(tmp_path, story)


def test_a_slow_build_never_overwrites_a_newer_one(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.builder.gates["slow"] = asyncio.Event()
        slow, fast = made.world.accept_push("slow"), made.world.accept_push("fast")
        await made.start(slow)
        await made.until(lambda: made.builder.started, lambda started: "slow" in started)
        assert (await made.run(fast)).status == "succeeded"
        made.builder.gates["slow"].set()
        ended = await made.ended(slow)
        assert (ended.status, (ended.error or {})["code"]) == ("canceled", "job.superseded")
        assert ended.result == {"superseded_by": fast.id}
        with made.store.read() as session:
            [release] = session.exec(select(Release)).all()
            assert release.rollout_id == fast.resource_id
            assert session.get_one(Rollout, slow.resource_id).status == "superseded"

    run_story(tmp_path, story)


def test_a_broken_build_ends_the_whole_job(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.builder.broken["main"] = "build.step_failed"
        job = await made.run(made.world.accept_push())
        assert (job.status, (job.error or {})["code"]) == ("failed", "build.step_failed")
        assert (job.error or {})["exit_code"] == 3
        with made.store.read() as session:
            assert session.exec(select(Release)).all() == []
            assert [b.status for b in session.exec(select(Build)).all()] == ["failed"]
            assert [r.status for r in session.exec(select(Rollout)).all()] == ["failed"]

    run_story(tmp_path, story)


def test_a_cancel_during_the_build_ends_both_parts(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.builder.gates["main"] = asyncio.Event()
        job = made.world.accept_push()
        await made.start(job)
        await made.until(lambda: made.builder.started, lambda started: started)
        await made.starts.cancel(job.id)
        assert (await made.ended(job)).status == "canceled"
        await made.until(lambda: made.builder.canceled, lambda canceled: canceled == ["main"])
        with made.store.read() as session:
            assert [b.status for b in session.exec(select(Build)).all()] == ["canceled"]

    run_story(tmp_path, story)


def test_a_cancel_during_the_roll_reaches_it(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.host.place_gate = asyncio.Event()
        job = made.world.accept_push()
        await made.start(job)
        await made.until(lambda: made.host.placing, lambda placing: placing)
        await made.starts.cancel(job.id)
        assert (await made.ended(job)).status == "canceled"
        assert made.host.live == 0

    run_story(tmp_path, story)


def test_a_terminated_push_is_lost_and_its_build_is_stopped(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        made.builder.gates["main"] = asyncio.Event()
        job = made.world.accept_push()
        await made.start(job)
        await made.until(lambda: made.builder.started, lambda started: started)
        await made.client.get_workflow_handle(job.id).terminate("by hand")
        ended = await made.ended(job)
        assert ended.status == "failed"
        assert (ended.error or {})["code"] == "job.lost"
        await made.until(lambda: made.builder.canceled, lambda canceled: canceled == ["main"])

    run_story(tmp_path, story, reconcile=True)
