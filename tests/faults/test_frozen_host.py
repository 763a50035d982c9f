"""A host worker that is stopped in a switch, an undo or a stop and goes on much later: the job ends right, once."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.stack import Stack
from tests.faults.conftest import Visitor
from tests.faults.parts import Until, caught_in_the_switch, frozen, in_hand, patiently, pid_of, second_worker
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


def test_the_worker_is_stopped_in_an_undo_and_goes_on(
    stack: Stack, place: Place, artifacts: list[str], visitor: Visitor, until: Until
) -> None:
    """A rollout that is canceled in its bake: the old edition comes back, though late."""
    production = place.site.production
    place.caller.http.patch(place.path(production), json={"bake_seconds": 600}).raise_for_status()
    job = place.start_roll(artifacts[0], production)
    until(lambda: place.caller.get(f"/v1/jobs/{job['id']}")["stage"] == "bake", "it is watched")
    assert "second edition" in place.page().text
    with _frozen_at_its_lock(stack, production) as let_go:
        place.caller.http.post(f"/v1/jobs/{job['id']}/cancel").raise_for_status()
        until(lambda: in_hand(stack, job["id"], "host.undo") == "started", "it is being put back")
        let_go()
        assert place.caller.get(f"/v1/jobs/{job['id']}")["status"] == "running"
    assert patiently(place.caller, job)["status"] == "canceled"
    assert "first edition" in place.page().text
    assert len(place.releases(production)) == 1
    place.caller.http.patch(place.path(production), json={"bake_seconds": 0}).raise_for_status()
    assert patiently(place.caller, place.start_roll(artifacts[1], production))["status"] == "succeeded"
    visitor.stop()
    assert visitor.failures == []
    assert [page.split("<h1>")[1].split(" ")[0] for page in visitor.seen] == ["first", "second", "first", "third"]


def test_the_worker_is_stopped_in_a_stop_and_goes_on(
    stack: Stack, place: Place, artifacts: list[str], until: Until
) -> None:
    production = place.site.production
    deployment = place.site.id.replace("site_", "dep_")
    with _frozen_at_its_lock(stack, production) as let_go:
        answer = place.caller.http.post(f"/api/v1/deployments/{deployment}/stop")
        assert answer.status_code in (200, 202), answer.text
        until(lambda: _stops(place) != [], "it is accepted")
        [job] = _stops(place)
        until(lambda: in_hand(stack, job["id"], "host.undo") == "started", "it is being stopped")
        assert "first edition" in place.page().text
        let_go()
        assert place.caller.get(f"/v1/jobs/{job['id']}")["status"] == "running"
    assert patiently(place.caller, job)["status"] == "succeeded"
    assert place.page().status == 404
    again = place.start_roll(artifacts[0], production)
    assert patiently(place.caller, again)["status"] == "succeeded"
    assert "second edition" in place.page().text


def _stops(place: Place) -> list[dict[str, Any]]:
    jobs = place.caller.get("/v1/jobs?limit=100")
    return [one for one in jobs if one["type"] == "deployment.stop" and one["resource"]["site_id"] == place.site.id]


@contextlib.contextmanager
def _frozen_at_its_lock(stack: Stack, env_id: str) -> Iterator[Callable[[], None]]:
    """The environment's lock is ours; `let_go` freezes the worker that waits for it, and lets it time out. At the end
    it goes on."""
    with (stack.data / "host" / "env" / env_id / "lock").open("rb+") as lock, contextlib.ExitStack() as held:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def let_go() -> None:
            held.enter_context(frozen(pid_of(stack, "host")))
            fcntl.flock(lock, fcntl.LOCK_UN)
            # Longer than a switch may take.
            time.sleep(12)

        yield let_go
