"""kill -9 while builds of two sites wait in line: each is made once, and no site's backlog keeps another waiting."""

from __future__ import annotations

import time

import pytest

from bench.client import Caller, Site
from bench.stack import Stack
from tests.faults.conftest import NUMBERS
from tests.faults.parts import kill, patiently
from tests.faults.repository import Repository

pytestmark = pytest.mark.slow
FIRST, SECOND = 4, 2


def queue(stack: Stack, caller: Caller, builds: int) -> tuple[Site, list[dict]]:
    """A site, and so many builds of its branches, which take a second each."""
    repository = Repository(stack.repos / f"in-line-{next(NUMBERS)}")
    for number in range(builds):
        repository.commit(f"edition {number}", seconds=1, branch=f"b{number}")
    site = caller.new_site(repository.folder.name, repository.folder.as_uri())
    path = f"/v1/sites/{site.id}/environments/{site.staging}/builds"
    return site, [caller.post(path, {"ref": f"b{number}"}) for number in range(builds)]


@pytest.mark.parametrize("names", [("builder",), ("control",), ("api",), ("builder", "control", "api", "temporal")])
def test_builds_in_line_are_made_once_each(stack: Stack, caller: Caller, names: tuple[str, ...]) -> None:
    one, first = queue(stack, caller, FIRST)
    two, second = queue(stack, caller, SECOND)
    for name in names:
        time.sleep(1)
        kill(stack, name)
    ended = [patiently(caller, job) for job in (*first, *second)]
    assert [job["status"] for job in ended] == ["succeeded"] * (FIRST + SECOND), [job["error"] for job in ended]
    for site, jobs in ((one, ended[:FIRST]), (two, ended[FIRST:])):
        rows = caller.get(f"/v1/sites/{site.id}/environments/{site.staging}/builds?limit=100")
        assert {row["job_id"] for row in rows} == {job["id"] for job in jobs}
        assert {row["status"] for row in rows} == {"succeeded"}
        artifacts = caller.get(f"/v1/sites/{site.id}/environments/{site.staging}/artifacts?limit=100")
        assert sorted(row["id"] for row in artifacts) == sorted(job["result"]["artifact_id"] for job in jobs)
    # Two at once of a site: what it has behind them lets the other one's go first.
    assert ended[FIRST]["started_at"] < max(job["started_at"] for job in ended[:FIRST])
