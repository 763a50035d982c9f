"""Restart, scale, suspend and resume in the environment's order; a bake that ends well, badly, or at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlmodel import col, select

from headway.broker import DriftNote
from headway.errors import HeadwayError
from store.drifts import note_drifts, unmended
from store.models import Environment, Job, Release, Rollout, utcnow
from store.models_lifecycle import Drift
from store.releases import current_release, release_before
from tests.workflows.engine import Engine, run_story


def releases(made: Engine) -> list[Release]:
    with made.store.read() as session:
        return list(session.exec(select(Release).order_by(col(Release.seq))).all())


async def served(made: Engine, digest: str = "a") -> str:
    """An app that is live; its artifact."""
    artifact = made.world.artifact(digest * 64, "dynamic")
    assert (await made.run(made.world.accept_roll(artifact))).status == "succeeded"
    return artifact


def bakes(made: Engine, seconds: int = 60) -> None:
    with made.store.write() as session:
        session.get_one(Environment, made.world.env_id).bake_seconds = seconds


def test_what_is_done_about_an_app_takes_its_turn_and_its_artifact_when_that_comes(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        await served(made)
        made.host.place_gate = asyncio.Event()
        newer = made.world.artifact("b" * 64, "dynamic")
        jobs = [made.world.accept_roll(newer), made.world.act("restart"), made.world.act("scale", instances=4)]
        for job in jobs:
            await made.start(job)
        made.host.place_gate.set()
        ended = [await made.ended(job) for job in jobs]
        assert [job.status for job in ended] == ["succeeded"] * 3
        assert made.host.placing[1:] == [job.resource_id for job in jobs]
        assert [one.artifact_id for one in releases(made)[1:]] == [newer] * 3
        assert (ended[2].result or {})["instances"] == made.world.environment().instances == 4
        later = await made.run(made.world.accept_roll(newer))
        with made.store.read() as session:
            assert session.get_one(Rollout, later.resource_id).instances == 4
            # A rollback goes over what changed neither code nor configuration.
            scaled = session.get_one(Rollout, jobs[2].resource_id)
            assert release_before(session, scaled).artifact_id != newer

    run_story(tmp_path, story)


def test_a_suspended_environment_takes_nothing_but_its_resumption(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        artifact = await served(made)
        made.host.place_gate = asyncio.Event()
        suspend, again = made.world.act("suspend"), made.world.act("suspend")
        assert suspend.id == again.id
        late = made.world.accept_roll(artifact)
        for job in (suspend, late):
            await made.start(job)
        made.host.place_gate.set()
        assert (await made.ended(suspend)).status == "succeeded"
        refused = await made.ended(late)
        assert (refused.status, (refused.error or {})["code"]) == ("failed", "environment.suspended")
        assert made.world.environment().status == "suspended"
        assert len(releases(made)) == 1
        resumed = await made.run(made.world.act("resume"))
        assert resumed.status == "succeeded"
        assert made.world.environment().status == "active"
        assert [(one.artifact_id, one.current) for one in releases(made)] == [(artifact, False), (artifact, True)]
        with pytest.raises(HeadwayError) as refusal:
            made.world.act("resume")
        assert refusal.value.code == "environment.not_suspended"

    run_story(tmp_path, story)


def test_a_release_that_bakes_well_counts_with_what_was_measured(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        await served(made)
        bakes(made)
        made.host.bake_gate = asyncio.Event()
        job = made.world.accept_push()
        await made.start(job)
        await made.until(lambda: made.host.baking, lambda baking: baking)
        seen = made.world.job(job.id)
        assert (seen.status, seen.stage, made.host.live) == ("running", "bake", 3)
        assert len(releases(made)) == 1
        made.host.bake_gate.set()
        ended = await made.ended(job)
        assert ended.status == "succeeded"
        [host] = (ended.result or {})["bake"]["hosts"]
        assert (host["looks"], host["bad"], host["seconds"]) == (3, 0, 60)
        assert [one.seq for one in releases(made)] == [1, 3]

    run_story(tmp_path, story)


def test_a_release_that_bakes_badly_goes_back_with_what_was_measured(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        await served(made)
        bakes(made)
        made.host.bad = "/ was bad 3 times in a row"
        job = await made.run(made.world.accept_roll(made.world.artifact("b" * 64, "dynamic")))
        error, result = job.error or {}, job.result or {}
        assert (job.status, error["code"], error["stage"]) == ("failed", "roll.bake_failed", "bake")
        assert made.host.bad in error["message"]
        assert result["bake"]["hosts"][0]["bad"] == 3
        assert made.host.live == 1
        assert [one.seq for one in releases(made)] == [1]
        made.host.bad = ""
        assert (await made.run(made.world.act("restart"))).status == "succeeded"

    run_story(tmp_path, story)


def test_a_rollback_ends_a_bake_at_once(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        artifact = await served(made)
        bakes(made, 3600)
        made.host.bake_gate = asyncio.Event()
        job = made.world.accept_push()
        await made.start(job)
        await made.until(lambda: made.host.baking, lambda baking: baking)
        with made.store.read() as session:
            watched = session.get_one(Rollout, job.resource_id)
            assert release_before(session, watched) == current_release(session, made.world.env_id)
        back = made.world.accept_roll(artifact, kind="rollback")
        await made.start(back)
        assert (await made.ended(job)).status == "canceled"
        assert (await made.ended(back)).status == "succeeded"
        assert made.host.history == [1, 3, 1, 5]
        assert [one.rollout_id for one in releases(made)][1:] == [back.resource_id]

    run_story(tmp_path, story)


def test_what_a_host_cannot_mend_alone_is_mended_in_the_environments_order(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        artifact = await served(made)
        note = {"seq": 1, "kind": "contents", "what": "index.html", "found_at": 1e9, "mended_at": None}
        drift = DriftNote(id="drift_" + "0" * 26, env_id=made.world.env_id, **note)
        with made.store.write() as session:
            assert note_drifts(session, "elsewhere", [drift]) == 0
            assert note_drifts(session, "local", [drift]) == 1
        [repair] = await made.until(lambda: repairs(made), lambda found: found)
        ended = await made.ended(repair)
        assert ended.status == "succeeded"
        assert [one.artifact_id for one in releases(made)] == [artifact] * 2
        mended = drift.model_copy(update={"mended_at": utcnow().timestamp()})
        with made.store.write() as session:
            assert unmended(session) == []  # just tried
            note_drifts(session, "local", [mended])
            row = session.get_one(Drift, drift.id)
            assert row.mended_at is not None
            assert row.job_id == repair.id
        assert len(repairs(made)) == 1

    run_story(tmp_path, story, reconcile=True)


def repairs(made: Engine) -> list[Job]:
    with made.store.read() as session:
        return list(session.exec(select(Job).where(Job.type == "environment.repair")).all())
