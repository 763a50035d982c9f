"""Cancels while something is being killed: a kill costs time, and never the end that was asked for."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from bench.stack import Stack
from tests.faults.conftest import Visitor
from tests.faults.parts import Json, accepted, kill, patiently, ways
from tests.faults.repository import Repository
from tests.faults.test_monkey import everything_agrees
from tests.stack.sites import Place

pytestmark = pytest.mark.slow
CHANCE = random.Random(int(os.environ.get("HEADWAY_TEST_SEED", "20240917")))
VICTIMS = ("api", "control", "builder", "signing", "host", "temporal", "weed")
ROUNDS = 5 if os.environ.get("HEADWAY_FAULTS") == "sample" else 14
PATIENCE = 60


def answered(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """By an API that may be away for a moment."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            answer = ask()
            if answer.status_code < 500:
                return answer
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "the API never answered"
        time.sleep(0.05)


def hurt(stack: Stack) -> str:
    name = CHANCE.choice(VICTIMS)
    try:
        kill(stack, name)
    except (KeyError, ProcessLookupError):
        return f"{name} (away)"
    return name


def test_jobs_are_canceled_while_something_is_killed(
    stack: Stack, place: Place, repository: Repository, visitor: Visitor, until: Any
) -> None:
    place.push(place.site.staging)
    repository.commit("second edition")
    artifacts = [place.build()["artifact_id"], place.artifacts()[-1]["id"]]
    canceled: list[tuple[Json, int, str]] = []
    for number in range(ROUNDS):
        if CHANCE.random() < 0.5:
            repository.commit(f"edition {number}", seconds=CHANCE.choice((0, 1)))
        # Rounds in which nothing can be accepted would be over before the API is back.
        answered(lambda: place.caller.http.get("/v1/jobs?limit=1"))
        job = accepted(CHANCE.choice(ways(place, artifacts, CHANCE)))
        if job is None:
            continue
        time.sleep(CHANCE.choice((0, 0.05, 0.2, 0.6)))
        before = CHANCE.random() < 0.5
        killed = hurt(stack) if before else ""
        answer = answered(lambda job=job: place.caller.http.post(f"/v1/jobs/{job['id']}/cancel"))
        killed = killed or f"afterwards {hurt(stack)}"
        canceled.append((job, answer.status_code, killed))
        time.sleep(CHANCE.uniform(0, 1))
    assert len(canceled) > ROUNDS // 3
    for job, status, killed in canceled:
        ended = patiently(place.caller, job)
        said = (ended["type"], ended["status"], ended["error"], status, killed)
        assert ended["status"] in ("canceled", "succeeded"), said
        assert status in (202, 409), said
        # The gate and the flag are one row: what was told that it is canceled is not seen. A build harms nobody.
        if status == 202 and ended["type"] != "build.run":
            assert ended["status"] == "canceled", said
    everything_agrees(stack, place, until)
    visitor.stop()
    assert visitor.failures == [], canceled
