"""Temporal's database is put back to an earlier day, or is gone: no job is lost or done twice, and work goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.stack import Stack
from tests.faults.conftest import Visitor
from tests.faults.parts import Json, Until, entered_releases, frozen, patiently, pid_of
from tests.faults.repository import Repository
from tests.stack.sites import Place

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def without_temporal(stack: Stack) -> Iterator[Path]:
    """kill -9 of the server, and its folder to change while nobody starts it again."""
    with frozen(pid_of(stack, "twin"), pid_of(stack, "supervisor")):
        pid = pid_of(stack, "temporal")
        os.kill(pid, signal.SIGKILL)
        while _alive(pid):
            time.sleep(0.01)
        yield stack.data / "temporal"


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def copy_of(folder: Path, target: Path) -> None:
    """Its owners included, as a backup does: the server may have an account of its own."""
    for path in folder.glob("temporal.db*"):
        owner = path.stat()
        shutil.copy2(path, target / path.name)
        os.chown(target / path.name, owner.st_uid, owner.st_gid)


def emptied(folder: Path) -> None:
    owner = folder.stat()
    shutil.rmtree(folder)
    folder.mkdir(mode=0o700)
    os.chown(folder, owner.st_uid, owner.st_gid)


def put_back(folder: Path, source: Path) -> None:
    for path in folder.glob("temporal.db*"):
        path.unlink()
    copy_of(source, folder)


def settled(place: Place) -> Json:
    production = place.site.production
    return {
        "releases": entered_releases(place, production),
        "artifacts": place.artifacts(),
        "builds": place.get(production, "builds?limit=100"),
        "deployments": place.get(production, "deployments?limit=100"),
        "environments": place.caller.get(f"/v1/sites/{place.site.id}/environments"),
    }


def assert_works_on(place: Place, repository: Repository) -> None:
    repository.commit("last edition")
    job = patiently(place.caller, place.start_push())
    assert job["status"] == "succeeded", job["error"]
    assert "last edition" in place.page().text


def test_an_older_database_is_put_back(
    stack: Stack, place: Place, repository: Repository, visitor: Visitor, tmp_path: Path
) -> None:
    """What ended since then is open again in the old database: those runs find that their rows have ended."""
    repository.commit("second edition", seconds=3)
    running = place.start_push()
    time.sleep(1)
    with without_temporal(stack) as folder:
        copy_of(folder, tmp_path)
    assert patiently(place.caller, running)["status"] == "succeeded"
    repository.commit("third edition")
    job = patiently(place.caller, place.start_push())
    assert job["status"] == "succeeded"
    before = settled(place)
    with without_temporal(stack) as folder:
        put_back(folder, tmp_path)
    assert_works_on(place, repository)
    after = settled(place)
    assert after["releases"][1:] == [{**row, "current": False} for row in before["releases"]]
    for name in ("builds", "deployments"):
        assert after[name][1:] == before[name]
    assert place.caller.get(f"/v1/jobs/{running['id']}")["status"] == "succeeded"
    visitor.stop()
    assert visitor.failures == []
    assert ["first" in page for page in visitor.seen] == [True] + [False] * (len(visitor.seen) - 1)


def test_the_database_is_gone_in_the_middle_of_a_build(
    stack: Stack, place: Place, repository: Repository, visitor: Visitor, until: Until
) -> None:
    repository.commit("second edition", seconds=20)
    job = place.start_push()
    until(lambda: place.caller.get(f"/v1/jobs/{job['id']}")["stage"] == "build", "the build runs")
    with without_temporal(stack) as folder:
        emptied(folder)
    ended = patiently(place.caller, job)
    assert (ended["status"], ended["error"]["code"]) == ("failed", "job.lost")
    assert place.get(place.site.production, "builds")[0]["status"] == "failed"
    assert len(place.releases(place.site.production)) == 1
    assert_works_on(place, repository)
    visitor.stop()
    assert visitor.failures == []


def test_the_database_is_gone_with_a_roll_at_its_host_and_more_that_wait(
    stack: Stack, place: Place, repository: Repository, visitor: Visitor, until: Until
) -> None:
    artifacts = []
    for text in ("second edition", "third edition"):
        repository.commit(text)
        artifacts.append(place.build()["artifact_id"])
    with frozen(pid_of(stack, "host")):
        first = place.start_roll(artifacts[0], place.site.production)
        until(lambda: place.caller.get(f"/v1/jobs/{first['id']}")["status"] == "running", "the first one runs")
        second = place.start_roll(artifacts[1], place.site.production)
        with without_temporal(stack) as folder:
            put_back(folder, Path("/nonexistent"))
    ends = [patiently(place.caller, job) for job in (first, second)]
    # Nothing of the first was live: it is carried out by a new run, or lost. Either way it happens at most once.
    assert ends[0]["status"] == "succeeded" or ends[0]["error"]["code"] == "job.lost"
    assert ends[1]["status"] == "succeeded"
    history = [row["deployment_id"] for row in place.releases(place.site.production)]
    expected = [one["resource"]["id"] for one in (second, first) if ends[one is second]["status"] == "succeeded"]
    assert history[:-1] == expected
    assert "third edition" in place.page().text
    visitor.stop()
    assert visitor.failures == []
    assert len(visitor.seen) <= len(history)


def test_jobs_are_accepted_while_temporal_is_away_and_start_when_it_is_back(
    stack: Stack, place: Place, repository: Repository, visitor: Visitor
) -> None:
    repository.commit("second edition")
    with without_temporal(stack):
        began = time.monotonic()
        job = place.start_push()
        accepted = time.monotonic() - began
        assert place.caller.get(f"/v1/jobs/{job['id']}")["status"] == "queued"
        assert len(place.releases(place.site.production)) == 1
        assert accepted < 10
    ended = patiently(place.caller, job)
    assert ended["status"] == "succeeded", ended["error"]
    assert "second edition" in place.page().text
    visitor.stop()
    assert visitor.failures == []
