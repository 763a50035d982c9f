"""Runs that are terminated or reset in the Temporal UI: each job ends right, once, and nothing happens twice."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowExecutionStatus

from bench.stack import Stack
from tests.faults.conftest import Visitor
from tests.faults.parts import Json, Until, entered_releases, frozen, in_hand, in_temporal, patiently, pid_of
from tests.faults.repository import Repository
from tests.stack.sites import Place

pytestmark = pytest.mark.slow


def terminate(stack: Stack, workflow_id: str) -> None:
    async def work(client: Client) -> None:
        await client.get_workflow_handle(workflow_id).terminate("by hand")

    in_temporal(stack, work)


def reset(stack: Stack, workflow_id: str) -> None:
    """Back to behind its first workflow task: everything that it did comes again."""

    async def work(client: Client) -> None:
        history = await client.get_workflow_handle(workflow_id).fetch_history()
        first = next(
            event.event_id for event in history.events if event.HasField("workflow_task_completed_event_attributes")
        )
        await client.workflow_service.reset_workflow_execution(
            ResetWorkflowExecutionRequest(
                namespace="default",
                workflow_execution=WorkflowExecution(workflow_id=workflow_id),
                reason="by hand",
                workflow_task_finish_event_id=first,
                request_id=f"reset-{time.time_ns()}",
            )
        )

    in_temporal(stack, work)


def closed(stack: Stack, workflow_id: str) -> bool:
    async def work(client: Client) -> bool:
        found = await client.get_workflow_handle(workflow_id).describe()
        return found.status is not WorkflowExecutionStatus.RUNNING

    return in_temporal(stack, work)


def rows(place: Place) -> Json:
    production = place.site.production
    return {
        "releases": entered_releases(place, production),
        "artifacts": place.artifacts(),
        "builds": [(row["id"], row["status"], row["artifact_id"]) for row in place.get(production, "builds?limit=100")],
        "deployments": [(row["id"], row["status"]) for row in place.get(production, "deployments?limit=100")],
    }


def at_work(place: Place, repository: Repository, until: Until, start: Callable[[], Json]) -> Json:
    """A job whose build is in the middle of its command."""
    repository.commit("second edition", seconds=60)
    job = start()
    until(lambda: place.caller.get(f"/v1/jobs/{job['id']}")["stage"] == "build", "the command runs")
    return job


@pytest.mark.parametrize("kind", ["build", "push"])
def test_a_build_that_is_terminated_is_lost_once(
    stack: Stack, place: Place, repository: Repository, visitor: Visitor, until: Until, kind: str
) -> None:
    before = rows(place)
    start = (lambda: place.start_build(env=place.site.production)) if kind == "build" else place.start_push
    job = at_work(place, repository, until, start)
    build = place.get(place.site.production, "builds")[0]
    terminate(stack, job["id"])
    ended = patiently(place.caller, job)
    assert (ended["status"], ended["error"]["code"]) == ("failed", "job.lost")
    until(lambda: place.get(place.site.production, "builds", build["id"])["finished_at"], "the build has ended too")
    row = place.get(place.site.production, "builds", build["id"])
    assert (row["status"], row["artifact_id"]) == ("failed", None)
    assert rows(place)["releases"] == before["releases"]
    # The builder hears of it and has a slot again.
    repository.commit("third edition")
    place.push()
    assert "third edition" in place.page().text
    assert patiently(place.caller, job) == ended
    visitor.stop()
    assert visitor.failures == []


def test_a_roll_that_is_terminated_before_its_switch_ends_by_what_is_live_and_the_next_one_works(
    stack: Stack, place: Place, repository: Repository, visitor: Visitor, until: Until
) -> None:
    """A host that was frozen with it in hand may carry it out when it goes on: the end of its run comes too late."""
    repository.commit("second edition")
    artifact = place.build()["artifact_id"]
    with frozen(pid_of(stack, "host")):
        job = place.start_roll(artifact, place.site.production)
        until(lambda: bool(in_hand(stack, job["id"], "host.roll")), "the roll is at its host")
        terminate(stack, job["id"])
        behind = place.start_roll(artifact, place.site.production)
    ended = patiently(place.caller, job)
    assert patiently(place.caller, behind)["status"] == "succeeded"
    history = [row["deployment_id"] for row in place.releases(place.site.production)][:-1]
    if ended["status"] == "failed":
        assert (ended["error"]["code"], history) == ("job.lost", [behind["resource"]["id"]])
    else:
        assert ended["status"] == "succeeded"
        assert history == [behind["resource"]["id"], job["resource"]["id"]]
    visitor.stop()
    assert visitor.failures == []


def test_a_roll_that_is_terminated_while_it_waits_rolls_in_its_turn(
    stack: Stack, place: Place, repository: Repository, visitor: Visitor, until: Until
) -> None:
    artifacts = []
    for text in ("second edition", "third edition"):
        repository.commit(text)
        artifacts.append(place.build()["artifact_id"])
    with frozen(pid_of(stack, "host")):
        jobs = [place.start_roll(one, place.site.production) for one in artifacts]
        until(lambda: bool(in_hand(stack, jobs[0]["id"], "host.roll")), "the first one is at its host")
        terminate(stack, jobs[1]["id"])
    for job in jobs:
        assert patiently(place.caller, job)["status"] == "succeeded"
    history = place.releases(place.site.production)
    assert [row["deployment_id"] for row in history][:2] == [job["resource"]["id"] for job in reversed(jobs)]
    assert len(history) == 3
    assert "third edition" in place.page().text
    visitor.stop()
    assert visitor.failures == []


def test_ended_runs_that_are_reset_do_nothing_again(
    stack: Stack, place: Place, repository: Repository, visitor: Visitor, until: Until
) -> None:
    repository.commit("second edition")
    build = place.caller.finish(place.start_build(env=place.site.production))
    roll = place.roll(build["result"]["artifact_id"], place.site.production)
    repository.commit("third edition")
    push = place.push()
    before = rows(place)
    for job in (build, roll, push):
        reset(stack, job["id"])
        until(lambda job=job: closed(stack, job["id"]), f"the reset {job['type']} has ended again")
        assert place.caller.get(f"/v1/jobs/{job['id']}") == job
    assert rows(place) == before
    assert "third edition" in place.page().text
    visitor.stop()
    assert visitor.failures == []
    assert len(visitor.seen) <= 3


@pytest.mark.parametrize("kind", ["build", "push"])
def test_a_running_job_that_is_reset_ends_once(
    stack: Stack, place: Place, repository: Repository, visitor: Visitor, until: Until, kind: str
) -> None:
    repository.commit("second edition", seconds=4)
    job = place.start_build(env=place.site.production) if kind == "build" else place.start_push()
    until(lambda: place.caller.get(f"/v1/jobs/{job['id']}")["stage"] == "build", "the command runs")
    reset(stack, job["id"])
    ended = patiently(place.caller, job)
    assert ended["status"] == "succeeded", ended["error"]
    assert len(place.get(place.site.production, "builds")) == 2
    assert len(place.artifacts()) == 2
    assert len(place.releases(place.site.production)) == (1 if kind == "build" else 2)
    assert "second edition" in (place.page().text if kind == "push" else "second edition")
    visitor.stop()
    assert visitor.failures == []


def test_a_running_roll_that_is_reset_ends_once(
    stack: Stack, place: Place, repository: Repository, visitor: Visitor, until: Until
) -> None:
    repository.commit("second edition")
    artifact = place.build()["artifact_id"]
    with frozen(pid_of(stack, "host")):
        job = place.start_roll(artifact, place.site.production)
        until(lambda: bool(in_hand(stack, job["id"], "host.roll")), "the roll is at its host")
        reset(stack, job["id"])
    ended = patiently(place.caller, job)
    assert ended["status"] == "succeeded", ended["error"]
    assert len(place.releases(place.site.production)) == 2
    assert "second edition" in place.page().text
    visitor.stop()
    assert visitor.failures == []
