"""A host worker that is stopped in the middle of a switch and goes on much later: it changes nothing any more."""

from __future__ import annotations

import contextlib
import time

import pytest

from bench.stack import Stack
from tests.faults.conftest import Visitor
from tests.faults.parts import Until, caught_in_the_switch, frozen, patiently, pid_of, second_worker
from tests.faults.repository import Repository
from tests.stack.sites import Place

pytestmark = pytest.mark.slow


@pytest.fixture
def artifacts(place: Place, repository: Repository) -> list[str]:
    made = []
    for text in ("second edition", "third edition"):
        repository.commit(text)
        made.append(place.build()["artifact_id"])
    return made


def test_the_only_worker_is_stopped_in_the_switch_and_goes_on(
    stack: Stack, place: Place, artifacts: list[str], visitor: Visitor, until: Until
) -> None:
    production = place.site.production
    with caught_in_the_switch(stack, place, artifacts[0], until) as job, frozen(pid_of(stack, "host")):
        # Longer than the switch may take: its activity has timed out when the worker goes on with it.
        time.sleep(12)
        assert place.caller.get(f"/v1/jobs/{job['id']}")["status"] == "running"
        assert "first edition" in place.page().text
    assert patiently(place.caller, job)["status"] == "succeeded"
    assert "second edition" in place.page().text
    assert len(place.releases(production)) == 2
    visitor.stop()
    assert visitor.failures == []
    assert len(visitor.seen) == 2


def test_another_worker_takes_over_and_the_first_one_comes_back_too_late(
    stack: Stack, place: Place, artifacts: list[str], visitor: Visitor, until: Until
) -> None:
    production = place.site.production
    with contextlib.ExitStack() as stopped:
        with caught_in_the_switch(stack, place, artifacts[0], until) as first:
            stopped.enter_context(frozen(pid_of(stack, "host")))
        with second_worker(stack, "host"):
            assert patiently(place.caller, first)["status"] == "succeeded"
            second = place.start_roll(artifacts[1], production)
            assert patiently(place.caller, second)["status"] == "succeeded"
            assert "third edition" in place.page().text
            stopped.close()
            back = place.start_rollback(production)
            assert patiently(place.caller, back)["status"] == "succeeded"
    history = place.releases(production)
    assert [row["artifact_id"] for row in history][:3] == [artifacts[0], artifacts[1], artifacts[0]]
    assert len(history) == 4
    visitor.stop()
    assert visitor.failures == []
    titles = [page.split("<h1>")[1].split(" ")[0] for page in visitor.seen]
    assert titles == ["first", "second", "third", "second"]
