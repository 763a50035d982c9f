"""Random work under random kills: at the end each job has ended once, and rows, hosts and visitors agree."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bench.stack import Stack
from headway.supervisor import identity
from headway.supervisor.folder import read_record
from tests.faults.conftest import Visitor
from tests.faults.parts import Json, accepted, kill, patiently, pid_of, ways
from tests.faults.repository import Repository
from tests.stack.sites import Place

pytestmark = pytest.mark.slow
CHANCE = random.Random(int(os.environ.get("HEADWAY_TEST_SEED", "20240917")))
VICTIMS = ("api", "control", "builder", "signing", "host", "temporal", "weed", "supervisor")
PATIENCE = 180
SECONDS = 12 if os.environ.get("HEADWAY_FAULTS") == "sample" else 40


class Monkey(threading.Thread):
    """Kills something every now and then until it is told to stop."""

    def __init__(self, stack: Stack, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.stack, self.chance = stack, chance
        self.ended = threading.Event()
        self.killed: list[str] = []

    def run(self) -> None:
        while not self.ended.wait(self.chance.uniform(0.5, 2.5)):
            name = self.chance.choice(VICTIMS)
            if name == "supervisor" and not self.succeeded():
                continue
            try:
                kill(self.stack, name)
            except (KeyError, ProcessLookupError):
                continue
            self.killed.append(name)

    def succeeded(self) -> bool:
        """Whether the supervisor has a standby: killed before it has one, it leaves the stack to the next `up`."""
        twin = read_record(self.stack.data / "run" / "twin.json")
        return identity.alive(twin) and twin["pid"] != pid_of(self.stack, "supervisor")

    def stop(self) -> None:
        self.ended.set()
        self.join()


def test_random_work_under_random_kills(
    stack: Stack, place: Place, repository: Repository, visitor: Visitor, until: Any
) -> None:
    place.push(place.site.staging)
    repository.commit("second edition")
    artifacts = [place.build()["artifact_id"], place.artifacts()[-1]["id"]]
    monkey = Monkey(stack, CHANCE)
    monkey.start()
    jobs: list[Json] = []
    deadline = time.monotonic() + SECONDS
    # A slow machine's API is away for longer after each kill: work until enough was accepted.
    while time.monotonic() < deadline or (len(jobs) <= 5 and time.monotonic() < deadline + PATIENCE):
        if CHANCE.random() < 0.2:
            repository.commit(f"edition {CHANCE.randrange(10_000)}", seconds=CHANCE.choice((0, 0, 1)))
        job = accepted(CHANCE.choice(ways(place, artifacts, CHANCE)))
        if job is not None:
            jobs.append(job)
            if CHANCE.random() < 0.15:
                accepted(lambda job=job: place.caller.post(f"/v1/jobs/{job['id']}/cancel"))
        time.sleep(CHANCE.uniform(0, 0.4))
    monkey.stop()
    assert len(jobs) > 5
    assert monkey.killed
    for job in jobs:
        patiently(place.caller, job)
    everything_agrees(stack, place, until)
    visitor.stop()
    assert visitor.failures == [], monkey.killed


def everything_agrees(stack: Stack, place: Place, until: Any) -> None:
    """Of all rows of the site, also those whose acceptance nobody heard of."""

    def open_jobs() -> list[Json]:
        mine = [
            job for job in place.caller.get("/v1/jobs?limit=100") if job["resource"].get("site_id") == place.site.id
        ]
        return [job for job in mine if job["status"] in ("queued", "running")]

    deadline = time.monotonic() + 90
    while open_jobs():
        assert time.monotonic() < deadline, open_jobs()
        time.sleep(0.5)
    for env in (place.site.production, place.site.staging):
        rollouts = place.get(env, "deployments?limit=100")
        releases = place.get(env, "releases?limit=100")
        assert [row["status"] for row in place.get(env, "builds?limit=100") if not row["finished_at"]] == []
        made = {row["release_id"] for row in rollouts if row["status"] == "succeeded"}
        assert {row["id"] for row in releases} == made
        assert len(releases) == len({row["deployment_id"] for row in releases}) == len(made)
        current = [row for row in releases if row["current"]]
        assert current == releases[:1]
        for row in rollouts:
            job = place.caller.get(f"/v1/jobs/{row['job_id']}")
            wanted = {"superseded": "canceled"}.get(row["status"], row["status"])
            assert job["status"] == wanted, (row, job)
            # Nothing here can fail by itself: a kill only ever costs time.
            assert job["status"] != "failed", job["error"]
        digest = place.get(env, "artifacts", current[0]["artifact_id"])["digest"].removeprefix("sha256:")
        root = (stack.data / "host" / "env" / env / "current").resolve() / "root"
        assert digest in str(Path(root).resolve())
