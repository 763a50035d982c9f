"""Builds share the builders: two of a site at once, in the order of acceptance; what is outdated is never built."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlmodel import select

from store.models import Build, Job, Rollout
from store.turns import Shares, must_wait
from tests.workflows.engine import Engine, run_story


async def held(made: Engine) -> list[Job]:
    """Two builds that hold the site's share until their gates open."""
    jobs = []
    for ref in ("a", "b"):
        made.builder.gates[ref] = asyncio.Event()
        jobs.append(made.world.accept_build(ref))
        await made.start(jobs[-1])
        await made.until(lambda: made.builder.started, lambda started, ref=ref: ref in started)
    return jobs


async def looked(made: Engine, job: Job) -> None:
    """Until its run has asked whether it may build, and sleeps."""
    handle = made.client.get_workflow_handle(job.id)
    for _ in range(1_000):
        if (await handle.describe()).history_length >= 5:
            break
        await asyncio.sleep(0.03)
    assert waits(made, job)


def waits(made: Engine, job: Job) -> bool:
    with made.store.read() as session:
        build = session.exec(select(Build).where(Build.job_id == job.id)).one()
        return must_wait(session, build, Shares(2, 6))


def test_a_third_build_of_a_site_waits_and_then_goes(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        first, second = await held(made)
        third = made.world.accept_build("c")
        await made.start(third)
        await made.until(lambda: made.client.get_workflow_handle(third.id), lambda _: True)
        assert waits(made, third)
        assert made.world.job(third.id).status == "queued"
        made.builder.gates["b"].set()
        assert (await made.ended(second)).status == "succeeded"
        assert (await made.ended(third)).status == "succeeded"
        assert made.builder.started == ["a", "b", "c"]
        made.builder.gates["a"].set()
        assert (await made.ended(first)).status == "succeeded"

    run_story(tmp_path, story)


@pytest.mark.slow
def test_a_waiting_build_is_canceled_without_a_trace(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        first, second = await held(made)
        third = made.world.accept_push("c", branch="c")
        await made.start(third)
        await looked(made, third)
        await made.starts.cancel(third.id)
        assert (await made.ended(third)).status == "canceled"
        for ref, job in (("a", first), ("b", second)):
            made.builder.gates[ref].set()
            await made.ended(job)
        assert made.builder.started == ["a", "b"]

    run_story(tmp_path, story)


@pytest.mark.slow
def test_a_waiting_push_makes_way_for_a_newer_one_of_its_branch(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        first, second = await held(made)
        old = made.world.accept_push("old", branch="main")
        await made.start(old)
        await looked(made, old)
        new = made.world.accept_push("new", branch="main")
        await made.start(new)
        ended = await made.ended(old)
        assert (ended.status, ended.result) == ("canceled", {"superseded_by": new.id})
        assert ended.error is not None
        assert ended.error["code"] == "job.superseded"
        for ref, job in (("a", first), ("b", second)):
            made.builder.gates[ref].set()
            await made.ended(job)
        assert (await made.ended(new)).status == "succeeded"
        assert made.builder.started == ["a", "b", "new"]
        with made.store.read() as session:
            build = session.exec(select(Build).where(Build.job_id == old.id)).one()
            rollout = session.exec(select(Rollout).where(Rollout.job_id == old.id)).one()
        assert (build.status, rollout.status) == ("superseded", "superseded")

    run_story(tmp_path, story)
