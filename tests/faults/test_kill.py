"""kill -9 of every part, in the middle of a build and of a roll: the job still ends right, once; the site serves on."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import pytest

from bench.client import Caller, Site
from bench.stack import Stack
from headway.supervisor.folder import read_record
from tests.faults.conftest import Visitor
from tests.faults.parts import kill, patiently, releases
from tests.faults.repository import Repository

pytestmark = pytest.mark.slow
COMPONENTS = ("api", "control", "builder", "signing", "host", "temporal", "weed", "supervisor")
SAMPLE = os.environ.get("HEADWAY_FAULTS") == "sample"
CHANCE = random.Random(int(os.environ.get("HEADWAY_TEST_SEED", "20240917")))
BUILDS = CHANCE.sample(COMPONENTS, 3) if SAMPLE else list(COMPONENTS)
# When a roll is hit, in seconds after it was asked for: a roll takes some tens of milliseconds.
MOMENTS = (0.0, 0.01, 0.02, 0.03, 0.045, 0.06)
ROLLS = (
    [(name, CHANCE.choice(MOMENTS)) for name in CHANCE.sample(COMPONENTS, 3)]
    if SAMPLE
    else [(name, moment) for name in COMPONENTS for moment in MOMENTS]
)
Until = Callable[[Callable[[], bool], str], None]


@pytest.mark.parametrize("name", BUILDS)
def test_in_the_middle_of_a_build(
    stack: Stack, caller: Caller, repository: Repository, site: Site, visitor: Visitor, until: Until, name: str
) -> None:
    repository.commit("second edition", seconds=2)
    job = caller.push(site, "production")
    until(lambda: caller.get(f"/v1/jobs/{job['id']}")["status"] == "running", "the build runs")
    time.sleep(0.8)
    kill(stack, name)
    ended = patiently(caller, job)
    assert ended["status"] == "succeeded", ended["error"]
    rows = releases(caller, site)
    assert len(rows) == 2
    assert [row["current"] for row in rows] == [True, False]
    until(lambda: "second edition" in visitor.look(), "the new page is served")
    visitor.stop()
    assert visitor.failures == []
    assert len(visitor.seen) <= 2


@pytest.mark.parametrize(("name", "moment"), ROLLS)
def test_in_the_middle_of_a_roll(
    stack: Stack,
    caller: Caller,
    repository: Repository,
    site: Site,
    visitor: Visitor,
    until: Until,
    name: str,
    moment: float,
) -> None:
    repository.commit("second edition")
    build = caller.finish(caller.post(f"/v1/sites/{site.id}/environments/{site.production}/builds", {"ref": "main"}))
    artifact = build["result"]["artifact_id"]
    path = f"/v1/sites/{site.id}/environments/{site.production}/deployments"
    job = caller.post(path, {"artifact_id": artifact})
    time.sleep(moment)
    kill(stack, name)
    ended = patiently(caller, job)
    assert ended["status"] == "succeeded", ended["error"]
    rows = releases(caller, site)
    assert len(rows) == 2
    assert rows[0]["artifact_id"] == artifact
    assert rows[0]["current"]
    until(lambda: "second edition" in visitor.look(), "the new page is served")
    visitor.stop()
    assert visitor.failures == []
    assert len(visitor.seen) <= 2


def test_the_web_server_comes_back_by_itself(stack: Stack, site: Site, until: Until) -> None:
    before = kill(stack, "caddy")
    eye = Visitor(stack, site.production_host)

    def served() -> bool:
        try:
            return "first edition" in eye.look()
        except Exception:
            return False

    until(served, "the page is served again")
    assert read_record(stack.data / "run" / "caddy.json")["pid"] != before
