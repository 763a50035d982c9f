"""The poll on a real Temporal server: due remotes are looked at a few at once, one run at a time, whoever is away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from sqlmodel import select

from activities.polling import Poller
from store.models import Build, Site, utcnow
from store.models_arrivals import RemoteWatch
from store.session import Store
from temporal import names
from tests.workflows.engine import Engine, run_story
from tests.workflows.rows import World


@asynccontextmanager
async def polling(engine: Engine) -> AsyncIterator[None]:
    """What the control worker keeps beside its activities."""
    poller = Poller(engine.store, engine.client, timedelta(seconds=engine.settings.poll_seconds), 1)
    watch = asyncio.create_task(poller.watch(every=0.05))
    try:
        yield
    finally:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch


def watch_remotes(store: Store, world: World, count: int) -> list[str]:
    """The world's site and others like it have remotes that are polled."""
    with store.write() as session:
        first = session.get_one(Site, world.site_id)
        first.repository = "https://forge.example/a.git"
        like = first.model_dump()
        ids = [first.id, *(f"site_{number:026d}" for number in range(1, count))]
        for id in ids[1:]:
            session.add(Site(**{**like, "id": id, "slug": id.lower().replace("_", "-"), "production_env_id": None}))
        session.flush()
        for id in ids:
            session.add(RemoteWatch(site_id=id, enabled=True))
    return ids


def due_again(store: Store) -> None:
    with store.write() as session:
        for row in session.exec(select(RemoteWatch)).all():
            row.next_at = utcnow() - timedelta(seconds=1)


def test_a_poll_deploys_what_nobody_told_of(tmp_path: Path) -> None:
    async def story(engine: Engine) -> None:
        remotes = engine.remotes
        assert remotes is not None
        ids = watch_remotes(engine.store, engine.world, 45)
        remotes.branches[ids[0]] = {"main": "a" * 40}
        remotes.away = {ids[1]}
        async with polling(engine):
            await engine.until(lambda: set(remotes.looked), lambda looked: looked == set(ids))
            await engine.until(lambda: seen(engine), lambda count: count == 44)
            remotes.branches[ids[0]] = {"main": "b" * 40}
            due_again(engine.store)
            builds = await engine.until(lambda: built(engine), lambda found: found)
        assert [(build.trigger, build.commit_sha) for build in builds] == [("poll", "b" * 40)]
        assert remotes.most == 1
        with engine.store.read() as session:
            assert session.get_one(RemoteWatch, ids[1]).failures > 0
        listed = [run.id async for run in engine.client.list_workflows("WorkflowType='Poll'")]
        assert set(listed) == {names.POLL_WORKFLOW}

    def seen(engine: Engine) -> int:
        with engine.store.read() as session:
            return sum(row.seen_at is not None for row in session.exec(select(RemoteWatch)).all())

    def built(engine: Engine) -> list[Build]:
        with engine.store.read() as session:
            return list(session.exec(select(Build)).all())

    run_story(tmp_path, story)
