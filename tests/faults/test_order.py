"""Requests that meet: one rollout at a time, in the order of acceptance, and only the newest of a branch goes live."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.stack import Stack
from tests.faults.conftest import Visitor
from tests.faults.parts import Json, Until, frozen, patiently, pid_of
from tests.faults.repository import Repository, let_go, running
from tests.stack.sites import Place

pytestmark = pytest.mark.slow


@pytest.fixture
def editions(place: Place, repository: Repository) -> list[str]:
    """Artifacts of three more editions, none of them live."""
    made = []
    for text in ("second edition", "third edition", "fourth edition"):
        repository.commit(text)
        made.append(place.build()["artifact_id"])
    return made


def ended_in_order(place: Place, jobs: list[Json]) -> list[Json]:
    """All succeeded, each with one release; the environment's history is in the order of acceptance."""
    for job in jobs:
        ended = patiently(place.caller, job)
        assert ended["status"] == "succeeded", ended["error"]
    rollouts = place.get(place.site.production, "deployments?limit=100")
    accepted = [row["release_id"] for row in rollouts]
    history = place.releases(place.site.production)
    assert [row["id"] for row in history] == accepted
    assert [row["current"] for row in history] == [True] + [False] * (len(history) - 1)
    assert {row["deployment_id"] for row in history} >= {job["resource"]["id"] for job in jobs}
    return history


def test_deploys_to_one_environment_at_once(place: Place, editions: list[str], visitor: Visitor) -> None:
    with ThreadPoolExecutor(len(editions)) as pool:
        jobs = list(pool.map(lambda one: place.start_roll(one, place.site.production), editions * 2))
    history = ended_in_order(place, jobs)
    assert len(history) == 1 + len(jobs)
    visitor.stop()
    assert visitor.failures == []
    current = place.get(place.site.production, "artifacts", history[0]["artifact_id"])
    names = dict(zip(editions, ("second", "third", "fourth"), strict=True))
    assert names[current["id"]] in place.page().text


def test_a_deploy_while_another_environment_is_promoted(place: Place, editions: list[str], visitor: Visitor) -> None:
    place.roll(editions[0], place.site.staging)
    steps: list[Callable[[], Json]] = [
        place.start_promotion,
        lambda: place.start_roll(editions[1], place.site.production),
        place.start_promotion,
        lambda: place.start_roll(editions[2], place.site.staging),
    ]
    with ThreadPoolExecutor(len(steps)) as pool:
        jobs = [one.result() for one in [pool.submit(step) for step in steps]]
    to_production = [job for job in jobs if job["resource"]["env_id"] == place.site.production]
    assert len(to_production) == 3
    history = ended_in_order(place, to_production)
    assert len(history) == 4
    assert patiently(place.caller, jobs[3])["status"] == "succeeded"
    assert "fourth edition" in place.page(env=place.site.staging).text
    visitor.stop()
    assert visitor.failures == []


def test_a_slow_build_never_overtakes_a_newer_push_of_its_branch(
    place: Place, repository: Repository, visitor: Visitor, until: Until
) -> None:
    held = repository.commit_held("slow old edition")
    slow = place.start_push()
    until(lambda: bool(running(held)), "the old edition is being built")
    repository.commit("fast new edition")
    fast = place.start_push()
    assert patiently(place.caller, fast)["status"] == "succeeded"
    assert "fast new edition" in place.page().text
    let_go(held)
    ended = patiently(place.caller, slow)
    assert (ended["status"], ended["error"]["code"]) == ("canceled", "job.superseded")
    assert ended["result"]["superseded_by"] == fast["id"]
    assert place.get(place.site.production, "deployments", slow["resource"]["id"])["status"] == "superseded"
    history = place.releases(place.site.production)
    assert [row["deployment_id"] for row in history if row["current"]] == [fast["resource"]["id"]]
    assert len(history) == 2
    visitor.stop()
    assert visitor.failures == []
    assert ["slow" in page for page in visitor.seen] == [False] * len(visitor.seen)


def test_a_rollback_goes_ahead_of_what_waits_and_ends_what_has_not_switched(
    stack: Stack, place: Place, editions: list[str], visitor: Visitor, until: Until
) -> None:
    place.roll(editions[0], place.site.production)
    with frozen(pid_of(stack, "host")):
        placing = place.start_roll(editions[1], place.site.production)
        running = lambda: place.caller.get(f"/v1/jobs/{placing['id']}")["status"] == "running"  # noqa: E731
        until(running, "the first rollout is at its host")
        waiting = place.start_roll(editions[2], place.site.production)
        back = place.start_rollback(place.site.production)
        until(
            lambda: place.caller.get(f"/v1/jobs/{placing['id']}")["cancel_requested"], "the first one is asked to stop"
        )
    ends = [patiently(place.caller, job) for job in (placing, back, waiting)]
    assert [one["status"] for one in ends] == ["canceled", "succeeded", "succeeded"]
    history = [row["deployment_id"] for row in place.releases(place.site.production)]
    assert history[:2] == [waiting["resource"]["id"], back["resource"]["id"]]
    assert len(history) == 4
    until(lambda: "fourth edition" in place.page().text, "the one that waited is live")
    visitor.stop()
    assert visitor.failures == []
    # The first edition came back before what waited, and the one that was ended was never to be seen.
    assert [page.split("<h1>")[1].split(" ")[0] for page in visitor.seen] == ["first", "second", "first", "fourth"]
