"""Stop: a rollout to nothing; and commands in sandboxes, whose jobs end with what the builder says."""

from __future__ import annotations

from pathlib import Path

from sqlmodel import col, select

from store.models import Environment, Release, Rollout
from tests.workflows.engine import Engine, run_story


def test_an_environment_serves_nothing_and_then_something_again(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        artifact = made.world.artifact("a" * 64)
        await made.run(made.world.accept_roll(artifact))
        assert made.host.live == 1
        stopped = await made.run(made.world.accept_stop())
        assert (stopped.status, made.host.live, made.host.fenced) == ("succeeded", 0, 3)
        with made.store.read() as session:
            assert session.get_one(Rollout, stopped.resource_id).status == "succeeded"
            assert session.get_one(Environment, made.world.env_id).active_release_id is None
        again = await made.run(made.world.accept_roll(artifact, "promote"))
        assert (again.status, made.host.live) == ("succeeded", 5)
        with made.store.read() as session:
            releases = session.exec(select(Release).order_by(col(Release.seq))).all()
            assert [(row.seq, row.current) for row in releases] == [(1, False), (5, True)]

    run_story(tmp_path, story)


def test_a_command_ends_as_the_builder_says(tmp_path: Path) -> None:
    async def story(made: Engine) -> None:
        done = await made.run(made.world.accept_exec())
        assert (done.status, done.result, done.input) == (
            "succeeded",
            {"exit_code": 0, "duration_ms": 1, "limit": None},
            None,
        )
        assert made.executor is not None
        made.executor.broken = "build.unsandboxed"
        broken = await made.run(made.world.accept_exec())
        assert (broken.status, (broken.error or {})["code"], broken.input) == ("failed", "build.unsandboxed", None)

    run_story(tmp_path, story)
