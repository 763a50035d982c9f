"""Reports on a real Temporal server, to a real forge: in order, once, given up in the open, no business of a job's."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col, select

from activities.reports import ABSENT, Reports
from adapters.config.vault import Vault
from adapters.webhooks.targets import Targets
from headway.ids import new_id
from store import reports
from store.deliveries import Pace
from store.forge_links import LinkRequest, put_link
from store.models import Environment, Job, Site
from store.models_reports import ForgeLink, ForgeReport
from store.outcomes import end_job
from temporal import names
from temporal.worker import Role, offered, with_outside, working
from tests.adapters.forge_server import REPOSITORY, TOKEN, ForgeServer, Odd
from tests.workflows.engine import Engine, run_story
from workflows.report import Report

COMMIT = "c" * 40
QUICK = Pace(waits=(0.05, 0.1))


@asynccontextmanager
async def reporting(engine: Engine, pace: Pace = QUICK, seconds: float = 10.0) -> AsyncIterator[Reports]:
    """The control worker's part in it, on a worker of its own beside the engine's."""
    made = Reports(
        engine.store,
        engine.client,
        Vault(engine.settings.webhook_keys),
        Targets(["127.0.0.1"]),
        "http://api.test",
        pace,
        seconds=seconds,
    )
    for worker in engine.workers[:2]:
        await worker.shutdown()
    role = with_outside(Role(names.CONTROL, offered(made), [Report]))
    async with working(engine.client, [role]):
        watch = asyncio.create_task(made.watch(every=0.02))
        try:
            yield made
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch


def linked(engine: Engine, forge: ForgeServer, branch: str | None = None, token: str = TOKEN) -> None:
    """The site reports there; with `branch` its environment is that branch's preview. The first look is let pass."""
    wanted = LinkRequest(forge.provider, forge.api_url, REPOSITORY, token)
    with engine.store.write() as session:
        site = session.get_one(Site, engine.world.site_id)
        put_link(session, Vault(engine.settings.webhook_keys), site, wanted, {})
        session.delete(session.exec(select(ForgeReport).where(ForgeReport.kind == "check")).one())
        if branch is not None:
            environment = session.get_one(Environment, engine.world.env_id)
            environment.kind, environment.branch = "preview", branch


def kept(engine: Engine, kind: str | None = None) -> list[ForgeReport]:
    with engine.store.read() as session:
        rows = session.exec(select(ForgeReport).order_by(col(ForgeReport.created_at))).all()
        return [row for row in rows if kind in (None, row.kind)]


async def all_ended(engine: Engine, count: int) -> list[ForgeReport]:
    found = await engine.until(
        lambda: kept(engine), lambda rows: len(rows) == count and all(row.ended_at for row in rows)
    )
    return list(found)


def note(engine: Engine, job: Job, status: str, **result: Any) -> None:
    """The job as it is from now on."""
    with engine.store.write() as session:
        found = session.get_one(Job, job.id)
        if status == "running":
            found.status = status
            reports.note_job(session, found)
        elif status == "failed":
            end_job(session, found, status, error={"code": "build.step_failed", "message": "It broke."})
        else:
            end_job(session, found, status, result=result)


def test_a_push_is_told_from_its_start_to_its_end(tmp_path: Path) -> None:
    """The production worker with all of its parts; the forge fails on the way, and the job does not care."""

    async def story(engine: Engine) -> None:
        with ForgeServer("github", [Odd(502, after=True), Odd(500)]) as forge:
            linked(engine, forge, "feature/x")
            forge.open_pull(7, "feature/x")
            job = await engine.run(engine.world.accept_push(ref=COMMIT, branch="feature/x"))
            assert job.status == "succeeded"
            assert forge.asked == []
            async with reporting(engine):
                await all_ended(engine, 2)
            [status], [report] = kept(engine, "status"), kept(engine, "comment")
            assert (status.state, status.rev, status.sent_rev) == ("delivered", 2, 2)
            # What was pending when nobody could be told is told as it ended.
            assert forge.said()[-1] == "success"
            [body] = forge.comments[7].values()
            assert report.comments == {"7": str(next(iter(forge.comments[7])))}
            for part in ("Deployed", job.result["url"], COMMIT[:12], f"http://api.test/v1/jobs/{job.id}"):
                assert part in body
            assert forge.statuses[-1]["target_url"] == job.result["url"]
            assert job.id in forge.statuses[-1]["description"]
            handle = engine.client.get_workflow_handle(names.report_workflow(status.id))
            history = json.dumps((await handle.fetch_history()).to_json_dict())
            assert status.id in history
            for canary in (TOKEN, forge.api_url, REPOSITORY):
                assert canary not in history
            described = await handle.describe()
            attributes = {str(key): value for key, value in described.search_attributes.items()}
            assert attributes["HeadwayJobType"] == ["forge.report"]
            assert attributes["HeadwaySite"] == ["acme"]

    run_story(tmp_path, story)


@pytest.mark.slow
def test_one_comment_whatever_dies(tmp_path: Path) -> None:
    """Killed after it was made and before that was written; deleted by somebody; the next deploy changes it."""

    async def story(engine: Engine) -> None:
        with ForgeServer("gitea") as forge:
            linked(engine, forge, "feature/x")
            forge.open_pull(7, "feature/x")
            async with reporting(engine) as made:
                write, lost = made._write, [True]

                async def losing(work: Any, *args: str) -> str | None:
                    if lost:
                        lost.clear()
                        raise RuntimeError("killed")
                    return await write(work, *args)

                made._write = losing  # type: ignore[method-assign]
                note(engine, (job := engine.world.accept_push(ref=COMMIT)), "running")
                await all_ended(engine, 2)
                [first] = forge.comments[7]
                assert "On its way" in forge.comments[7][first]
                note(engine, job, "failed")
                await all_ended(engine, 2)
                assert list(forge.comments[7]) == [first]
                assert "Failed (`build.step_failed`)" in forge.comments[7][first]
                forge.comments[7].clear()
                note(engine, (again := engine.world.accept_push(ref="e" * 40)), "running")
                note(engine, again, "succeeded", url="http://x.test")
                await all_ended(engine, 3)
                [second] = forge.comments[7]
                assert second != first
                assert kept(engine, "comment")[0].comments == {"7": str(second)}
                # An old job that ends late has nothing to say any more.
                note(engine, job, "succeeded", url="http://old.test")
                assert "http://x.test" in forge.comments[7][second]

    run_story(tmp_path, story)


@pytest.mark.slow
def test_two_runs_at_once_leave_one_comment(tmp_path: Path) -> None:
    """A worker that was frozen comes back after another has written: it takes its own comment away."""

    async def story(engine: Engine) -> None:
        with ForgeServer("gitlab") as forge:
            linked(engine, forge, "feature/x")
            forge.open_pull(7, "feature/x")
            async with reporting(engine) as made:
                write, once = made._write, [True]

                async def late(work: Any, *args: str) -> str | None:
                    if once:
                        once.clear()
                        other = forge.comment(7, "what the other one wrote")
                        await write(reports.keep_comment, args[0], args[1], str(other))
                    return await write(work, *args)

                made._write = late  # type: ignore[method-assign]
                note(engine, engine.world.accept_push(ref=COMMIT), "running")
                await all_ended(engine, 2)
            assert list(forge.comments[7].values()) == ["what the other one wrote"]

    run_story(tmp_path, story)


@pytest.mark.slow
def test_a_forge_that_is_lost_learns_how_it_ended_and_not_how_it_went(tmp_path: Path) -> None:
    """Down while the job starts and ends: what is pending no longer is never said."""

    async def story(engine: Engine) -> None:
        with ForgeServer("github", [Odd(503, {"Retry-After": "3600"})]) as forge:
            linked(engine, forge)
            async with reporting(engine, Pace(waits=(3600.0,))):
                note(engine, (job := engine.world.accept_push(ref=COMMIT)), "running")
                await engine.until(lambda: kept(engine), lambda rows: len(rows[0].tries) == 1)
                assert kept(engine)[0].tries[0]["status"] == 503
                # The run sleeps for an hour; the end of the job wakes it.
                note(engine, job, "succeeded", url="http://x.test")
                [row] = await all_ended(engine, 1)
            assert (row.state, row.rev, row.sent_rev) == ("delivered", 2, 2)
            assert forge.said() == ["success"]

    run_story(tmp_path, story)


@pytest.mark.slow
def test_what_cannot_be_told_is_given_up_in_the_open_and_tried_again_on_request(tmp_path: Path) -> None:
    async def story(engine: Engine) -> None:
        with ForgeServer("github") as forge:
            linked(engine, forge, token="wrong-canary")
            async with reporting(engine):
                note(engine, engine.world.accept_push(ref=COMMIT), "running")
                [row] = await all_ended(engine, 1)
                assert (row.state, len(row.tries), row.tries[0]["status"]) == ("failed", 1, 401)
                with engine.store.read() as session:
                    link = session.exec(select(ForgeLink)).one()
                assert link.failing_since is not None
                assert "the token is not accepted" in (link.last_error or "")
                assert "wrong-canary" not in (link.last_error or "")
                linked(engine, forge)
                with engine.store.write() as session:
                    reports.retry(session, session.exec(select(ForgeLink)).one(), row.id)
                [row] = await all_ended(engine, 1)
            assert (row.state, forge.said()) == ("delivered", ["pending"])
            with engine.store.read() as session:
                assert session.exec(select(ForgeLink)).one().failing_since is None

    run_story(tmp_path, story)


@pytest.mark.slow
def test_a_pull_request_that_comes_later_gets_its_comment(tmp_path: Path) -> None:
    async def story(engine: Engine) -> None:
        with ForgeServer("gitea") as forge:
            linked(engine, forge, "feature/x")
            async with reporting(engine, Pace(waits=(0.2,))):
                note(engine, engine.world.accept_push(ref=COMMIT), "running")
                await engine.until(
                    lambda: kept(engine, "comment"), lambda rows: bool(rows) and rows[0].tries[-1:] != []
                )
                assert kept(engine, "comment")[0].tries[0]["error"] == ABSENT
                forge.open_pull(9, "feature/x")
                rows = await all_ended(engine, 2)
            assert len(forge.comments[9]) == 1
            assert {row.state for row in rows} == {"delivered"}

    run_story(tmp_path, story)


def test_a_pull_request_that_is_told_of_gets_its_comment_at_once(tmp_path: Path) -> None:
    """The run waits for an hour; a hook's call ends that."""

    async def story(engine: Engine) -> None:
        with ForgeServer("gitea") as forge:
            linked(engine, forge, "feature/x")
            async with reporting(engine, Pace(waits=(3600.0,))):
                note(engine, engine.world.accept_push(ref=COMMIT), "running")
                await engine.until(
                    lambda: kept(engine, "comment"), lambda rows: bool(rows) and rows[0].tries[-1:] != []
                )
                forge.open_pull(9, "feature/x")
                with engine.world.store.write() as session:
                    [report] = session.exec(select(ForgeReport).where(ForgeReport.kind == "comment")).all()
                    assert not reports.look_again(session, report.site_id, "feature/y")
                    assert reports.look_again(session, report.site_id, "feature/x")
                rows = await all_ended(engine, 2)
            assert len(forge.comments[9]) == 1
            assert {row.state for row in rows} == {"delivered"}

    run_story(tmp_path, story)


@pytest.mark.slow
def test_a_run_that_is_lost_is_started_again(tmp_path: Path) -> None:
    async def story(engine: Engine) -> None:
        with ForgeServer("github", [Odd(500)]) as forge:
            linked(engine, forge)
            async with reporting(engine, Pace(waits=(3600.0,))):
                note(engine, engine.world.accept_push(ref=COMMIT), "running")
                await engine.until(lambda: kept(engine), lambda rows: len(rows[0].tries) == 1)
                id = kept(engine)[0].id
                await engine.client.get_workflow_handle(names.report_workflow(id)).terminate()
                with engine.store.write() as session:
                    row = session.get_one(ForgeReport, id)
                    row.due_at = row.created_at
                await all_ended(engine, 1)
            assert forge.said() == ["pending"]

    run_story(tmp_path, story)


@pytest.mark.slow
def test_a_preview_that_has_ended_says_so(tmp_path: Path) -> None:
    async def story(engine: Engine) -> None:
        with ForgeServer("github") as forge:
            linked(engine, forge, "feature/x")
            forge.open_pull(7, "feature/x")
            async with reporting(engine):
                note(engine, (job := engine.world.accept_push(ref=COMMIT)), "running")
                note(engine, job, "succeeded", url="http://x.test")
                await all_ended(engine, 2)
                ending = Job(
                    id=new_id("job"),
                    team_id=engine.world.team_id,
                    site_id=engine.world.site_id,
                    env_id=engine.world.env_id,
                    type="environment.delete",
                    resource_type="environment",
                    resource_id=engine.world.env_id,
                )
                with engine.store.write() as session:
                    session.add(ending)
                note(engine, ending, "succeeded", deleted=True)
                await all_ended(engine, 2)
            [body] = forge.comments[7].values()
            assert "This preview has ended" in body
            assert "http://x.test" not in body

    run_story(tmp_path, story)
