"""Old jobs are forgotten with their logs; what explains a live release is kept."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from api.events import EventLog
from api.housekeeping import Housekeeping
from headway.broker import Event
from store.models import Job, Release, utcnow
from store.outcomes import append_release, end_job
from store.session import Store
from tests.workflows.rows import World, claim_next


@pytest.fixture
def world(store: Store) -> World:
    return World.make(store)


def test_ended_jobs_go_and_open_ones_and_those_behind_live_releases_stay(world: World, tmp_path: Path) -> None:
    live = world.accept_roll(world.artifact("a" * 64))
    world.store.in_write(lambda session: claim_next(session, world.env_id))
    world.store.in_write(lambda session: append_release(session, live.resource_id, None).id)
    old, young, waiting = (world.accept_build() for _ in range(3))
    with world.store.write() as session:
        for job in (old, young):
            end_job(session, session.get_one(Job, job.id), "failed", error={"code": "build.step_failed"})
        for job in (old, live):
            session.get_one(Job, job.id).finished_at = utcnow() - timedelta(days=31)
    events = EventLog(tmp_path / "events")
    for job in (old, live):
        events.append(job.id, "test", 1, [Event(kind="log", ts="t", stream="stdout", line="x")])

    keeping = Housekeeping(world.store, events, timedelta(days=30))
    assert keeping.sweep() == 1
    assert keeping.sweep() == 0

    with world.store.read() as session:
        known = [job.id for job in (old, young, waiting, live) if session.get(Job, job.id) is not None]
        assert session.get_one(Release, "rel_" + live.resource_id.split("_", 1)[1]).current
    assert known == [young.id, waiting.id, live.id]
    assert not events.path(old.id).exists()
    assert events.path(live.id).exists()
