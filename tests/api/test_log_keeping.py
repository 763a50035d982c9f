"""Logs of ended jobs go into the object store, leave the folder, and read the same as before."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from api.housekeeping import Housekeeping
from api.log_keeping import LogKeeping
from headway.broker import Event
from headway.errors import HeadwayError
from store.job_logs import log_of
from store.models import Build, Job, utcnow
from store.outcomes import end_job
from tests.api.test_broker import a_build
from tests.api.world import World

pytestmark = pytest.mark.anyio
COLOURED = "\x1b[32mgreen\x1b[0m …"


async def ended(api: World, lines: int = 3, name: str = "Ended") -> tuple[str, str, str]:
    """An ended build of some lines: the path of its log, its job's, and the job's id."""
    site, build, job = await a_build(api, name)
    events = [Event(kind="stage", ts="t", stage="build")]
    events += [Event(kind="log", ts="t", stream="stdout", line=f"{COLOURED} {n}") for n in range(lines)]
    api.parts.events.append(job, f"{build}/1", 1, events)
    with api.store.write() as session:
        end_job(session, session.get_one(Job, job), "failed", error={"code": "build.step_failed"})
        session.get_one(Job, job).finished_at = utcnow() - timedelta(minutes=5)
        session.get_one(Build, build).status = "failed"
        session.get_one(Build, build).finished_at = utcnow()
    of = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}/builds/{build}/log"
    return of, f"/v1/jobs/{job}/stream", job


def keeping(api: World, **more: float) -> LogKeeping:
    made = LogKeeping(api.store, api.parts.objects, api.parts.events, settle=0, **more)
    api.parts.events.archive = made
    return made


async def test_a_log_that_has_left_the_folder_reads_the_same(api: World) -> None:
    log, stream, job = await ended(api)
    whole = (await api.admin.get(log)).text
    assert whole.splitlines() == [f"{COLOURED} {n}" for n in range(3)]
    followed = (await api.admin.get(log, headers={"Accept": "text/event-stream"})).text
    resumed = (await api.admin.get(stream, headers={"Last-Event-ID": "3"})).text
    path = api.parts.events.path(job)
    for _ in range(2):
        assert keeping(api, local=-1).sweep()[1] == 1
        assert not path.exists()
        assert (await api.admin.get(log)).text == whole
        path.unlink()
        assert (await api.admin.get(log, headers={"Accept": "text/event-stream"})).text == followed
        path.unlink()
        assert (await api.admin.get(stream, headers={"Last-Event-ID": "3"})).text == resumed
    with api.store.read() as session:
        row = log_of(session, job)
    assert row is not None
    assert (row.key.rpartition("/")[2], row.lines) == (f"{job}.jsonl.zst", 5)
    assert len(api.objects.held[row.key]) < row.size


async def test_what_is_open_or_has_just_ended_is_left_alone(api: World) -> None:
    _, _, running = await a_build(api)
    api.parts.events.append(running, "control", 1, [Event(kind="log", ts="t", stream="stdout", line="x")])
    assert keeping(api, local=-1).sweep() == (0, 0)
    _, _, job = await ended(api)
    patient = replace(keeping(api), settle=3600.0)
    assert patient.sweep() == (0, 0)
    assert keeping(api).sweep() == (1, 0)
    assert api.parts.events.path(job).exists()
    assert keeping(api).sweep() == (0, 0)


async def test_a_crash_between_object_and_row_is_made_good(api: World) -> None:
    log, _, job = await ended(api)
    keeper = keeping(api)
    keeper.sweep()
    with api.store.write() as session:
        session.delete(log_of(session, job))
    assert keeper.sweep() == (1, 0)
    api.parts.events.path(job).unlink()
    assert "green" in (await api.admin.get(log)).text


async def test_a_damaged_log_is_not_shown(api: World) -> None:
    _, _, job = await ended(api)
    keeper = keeping(api, local=-1)
    keeper.sweep()
    (key,) = [key for key in api.objects.held if key.startswith("logs/")]
    api.objects.held[key] = api.objects.held[key][:-3] + b"xyz"
    with pytest.raises(HeadwayError) as caught:
        keeper.fetch(job)
    assert caught.value.code == "service.unavailable"


async def test_a_forgotten_job_takes_its_kept_log_along(api: World) -> None:
    _, _, job = await ended(api)
    keeper = keeping(api, local=-1)
    keeper.sweep()
    with api.store.write() as session:
        session.get_one(Job, job).finished_at = utcnow() - timedelta(days=31)
    assert Housekeeping(api.store, api.parts.events, timedelta(days=30), (), keeper).sweep() == 1
    assert not [key for key in api.objects.held if key.startswith("logs/")]
    assert keeper.fetch(job) is None
