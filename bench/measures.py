"""What is measured: each function takes the run's context and returns figures that go into the JSON as they are."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.service import RPCError

from bench import bare, building, pushing
from bench import ledger as ledger_at_size
from bench.client import Caller, Poster, Site, Watch
from bench.figures import percentile, spread
from bench.load import RATE, Load
from bench.memory import pss_by_component
from bench.repository import CHANGED, FILES, Repository, Service
from bench.stack import Stack

DEPLOYS = 30
SWITCHES = 100
REQUESTS = 5000
STARTS = 400
CALLERS = 16
UPS = 3
UPDATES = 20
COLD = 10
SERVICE_RATE = 200


@dataclass
class Run:
    stack: Stack
    folder: Path
    caller: Caller
    figures: dict[str, Any] = field(default_factory=dict)


def up(run: Run) -> dict[str, Any]:
    """`headway up --detach` on a fresh folder until it returns; the bench's own stack is the first sample."""
    times = [run.stack.up_seconds]
    for number in range(1, UPS):
        other = Stack.start(run.folder / f"up{number}")
        times.append(other.up_seconds)
        other.stop()
    return {
        "unit": "s",
        "n": len(times),
        "each": [round(taken, 2) for taken in times],
        "max": round(max(times), 2),
        "goal": 10,
    }


def deploy(run: Run) -> dict[str, Any]:
    """From the POST to the first byte of the new front page, and to the job's end, with 10 of 100 files changed."""
    repository = Repository(run.stack.repos / "deploy")
    repository.commit()
    site = run.caller.new_site("bench-deploy", repository.url)
    run.caller.finish(run.caller.push(site, site.production))
    live, done = [], []
    with Watch(run.stack, site.production_host) as watch:
        for _ in range(DEPLOYS):
            marker = repository.commit()
            began = time.perf_counter()
            job = run.caller.push(site, site.production)
            watch.until(marker)
            live.append(time.perf_counter() - began)
            run.caller.finish(job)
            done.append(time.perf_counter() - began)
    plain = _archives(run, repository)
    five = asyncio.run(_five(run.stack))
    return {
        "files": FILES,
        "changed": CHANGED,
        "to_new_byte": spread(live),
        "to_job_end": spread(done),
        "bare_archive_and_swap": spread(plain),
        "bare_five_activity_workflow": spread(five),
        "goal": "to_new_byte p50 under 500 ms, aim 300 ms",
    }


def _archives(run: Run, repository: Repository) -> list[float]:
    folder = run.folder / "bare"
    times = []
    for number in range(DEPLOYS):
        repository.commit()
        times.append(bare.archive_and_swap(repository.folder, folder, number))
    shutil.rmtree(folder)
    return times


async def _one(stack: Stack) -> list[float]:
    return await bare.one_activity(await Client.connect(stack.temporal), SWITCHES)


async def _five(stack: Stack) -> list[float]:
    return await bare.five_activities(await Client.connect(stack.temporal), DEPLOYS)


@dataclass(frozen=True)
class Editions:
    """A site whose staging environment can show either of two artifacts."""

    site: Site
    artifacts: tuple[str, str]
    markers: tuple[str, str]


def _editions(run: Run, name: str, kind: type[Repository] = Repository) -> Editions:
    repository = kind(run.stack.repos / name)
    markers, artifacts = [], []
    marker = repository.commit()
    site = run.caller.new_site(f"bench-{name}", repository.url, "auto" if kind is Service else "static")
    for following in (True, False):
        run.caller.finish(run.caller.push(site, site.staging))
        markers.append(marker)
        rows = run.caller.get(f"/v1/sites/{site.id}/environments/{site.staging}/releases?limit=1")
        artifacts.append(rows[0]["artifact_id"])
        if following:
            marker = repository.commit()
    return Editions(site, (artifacts[0], artifacts[1]), (markers[0], markers[1]))


def rollback_and_promote(run: Run) -> dict[str, Any]:
    """From the POST to the first byte of the other release: rollback on staging, promote from staging to production."""
    made = _editions(run, "switch")
    return {
        "rollback": spread(_rollbacks(run, made)),
        "promote": spread(_promotes(run, made)),
        "bare_workflow_to_its_activity": spread(asyncio.run(_one(run.stack))),
        "goal": "p50 under 60 ms, p99 under 150 ms",
    }


def _rollbacks(run: Run, made: Editions) -> list[float]:
    with Watch(run.stack, made.site.staging_host) as watch:
        first = next(number for number in (0, 1) if made.markers[number] not in watch.page())
        return [_rollback(run, made, watch, (first + number) % 2) for number in range(SWITCHES)]


def _rollback(run: Run, made: Editions, watch: Watch, edition: int, asked: dict[str, Any] | None = None) -> float:
    """From what is live to the release before, which is the other edition."""
    staging = f"/v1/sites/{made.site.id}/environments/{made.site.staging}"
    current = run.caller.get(f"{staging}/deployments?limit=1")[0]["id"]
    began = time.perf_counter()
    job = run.caller.post(f"{staging}/deployments/{current}/rollback", asked)
    watch.until(made.markers[edition])
    taken = time.perf_counter() - began
    run.caller.finish(job)
    return taken


def _promotes(run: Run, made: Editions) -> list[float]:
    staging = f"/v1/sites/{made.site.id}/environments/{made.site.staging}"
    times = []
    with Watch(run.stack, made.site.production_host) as watch:
        for number in range(SWITCHES):
            edition = number % 2
            run.caller.finish(run.caller.post(f"{staging}/deployments", {"artifact_id": made.artifacts[edition]}))
            began = time.perf_counter()
            job = run.caller.post(f"{staging}/promote", {"to_env": "production"})
            watch.until(made.markers[edition])
            times.append(time.perf_counter() - began)
            run.caller.finish(job)
    return times


def requests(run: Run) -> dict[str, Any]:
    """New connections at 300 a second while the site switches a hundred times: how many requests failed."""
    made = _editions(run, "requests")
    staging = f"/v1/sites/{made.site.id}/environments/{made.site.staging}"
    switches = 0
    with Load(run.stack.sites_port, made.site.staging_host, made.markers) as load:
        for edition in itertools.cycle((0, 1)):
            asked = (time.monotonic() - load.began) * RATE
            if switches >= SWITCHES and asked > REQUESTS * 1.1:
                break
            run.caller.finish(run.caller.post(f"{staging}/deployments", {"artifact_id": made.artifacts[edition]}))
            switches += 1
    counts = load.result["counts"]
    failed = {why: number for why, number in counts.items() if why != "ok"} if isinstance(counts, dict) else {}
    return {
        **load.result,
        "rate": RATE,
        "switches": switches,
        "failed": sum(failed.values()),
        "why": failed,
        "goal": "0 failed",
    }


def services(run: Run) -> dict[str, Any]:
    """A one-file WSGI app under 200 new connections a second: new instances by deploys, warm ones by rollbacks.

    A deploy starts the app, and so does a way back under another configuration: a bare start of it, to its first
    answer, stands beside. So does, under the same load, the way of a workflow to its first activity. The ways back are
    measured once more without visitors.
    """
    made = _editions(run, "service", Service)
    staging = f"/v1/sites/{made.site.id}/environments/{made.site.staging}"
    variables = f"{staging}/variables/ROUND"
    cold, back = [], []
    with Load(run.stack.sites_port, made.site.staging_host, made.markers, rate=SERVICE_RATE) as load:
        with Watch(run.stack, made.site.staging_host) as watch:
            for number in range(UPDATES):
                # Another configuration: what is warm does not fit, and is not taken over.
                run.caller.http.put(variables, json={"value": str(number)}).raise_for_status()
                began = time.perf_counter()
                job = run.caller.post(f"{staging}/deployments", {"artifact_id": made.artifacts[number % 2]})
                watch.until(made.markers[number % 2])
                cold.append(time.perf_counter() - began)
                run.caller.finish(job)
            for number in range(COLD):
                run.caller.http.put(variables, json={"value": f"cold {number}"}).raise_for_status()
                back.append(_rollback(run, made, watch, number % 2, {"keep_config": True}))
        warm = _rollbacks(run, made)
        least = asyncio.run(_one(run.stack))
    counts = load.result["counts"]
    failed = {why: number for why, number in counts.items() if why != "ok"} if isinstance(counts, dict) else {}
    return {
        "update": spread(cold),
        "rollback_to_cold": spread(back),
        "rollback_to_warm": spread(warm),
        "bare_workflow_to_its_activity": spread(least),
        "rollback_to_warm_without_visitors": spread(_rollbacks(run, made)),
        "bare_start": spread(bare.service_starts(run.stack.repos / "service", UPDATES)),
        **load.result,
        "rate": SERVICE_RATE,
        "switches": UPDATES + COLD + SWITCHES,
        "failed": sum(failed.values()),
        "why": failed,
        "goal": "update p50 under 1.5 s; rollback to warm p50 under 60 ms, p99 under 150 ms, to cold under 1 s and the "
        "start; 0 failed",
    }


def starts(run: Run) -> dict[str, Any]:
    """Builds accepted per second by 16 callers, until each has its run in Temporal, against bare starts.

    What is compared is accepting: bare starts have no worker that takes them up, so ours wait meanwhile too.
    """
    repository = Repository(run.stack.repos / "starts", files=2)
    repository.commit()
    sites = [run.caller.new_site(f"bench-starts-{number}", repository.url) for number in range(4)]
    numbers: Iterator[int] = iter(range(STARTS))
    turn = threading.Lock()
    jobs: list[str] = []
    answers: list[float] = []

    def call() -> None:
        poster = Poster(run.stack)
        while True:
            with turn:
                number = next(numbers, None)
            if number is None:
                return
            site = sites[number % len(sites)]
            began = time.perf_counter()
            job = poster.post(f"/v1/sites/{site.id}/environments/{site.staging}/builds", b'{"ref":"main"}')
            answers.append(time.perf_counter() - began)
            jobs.append(job["id"])

    before = asyncio.run(_bare_starts(run.stack, "before"))
    with _frozen(run.stack, "control", "builder"):
        began = time.perf_counter()
        with ThreadPoolExecutor(CALLERS) as pool:
            for future in [pool.submit(call) for _ in range(CALLERS)]:
                future.result()
        accepted = STARTS / (time.perf_counter() - began)
        missing = asyncio.run(_missing(run.stack, jobs))
        exist = STARTS / (time.perf_counter() - began) if missing else accepted
    _cancel(run, jobs)
    after = asyncio.run(_bare_starts(run.stack, "after"))
    plain = max(before, after)
    return {
        "n": STARTS,
        "callers": CALLERS,
        "accepted_per_second": round(accepted, 1),
        "run_exists_per_second": round(exist, 1),
        "answer": spread(answers),
        "p50_answer_ms": round(percentile(answers, 0.5) * 1000, 1),
        "bare_starts_per_second": round(plain, 1),
        "share_of_bare": round(exist / plain, 2),
        "goal": "share_of_bare at least 0.6",
    }


async def _bare_starts(stack: Stack, label: str) -> float:
    return await bare.bare_starts(await Client.connect(stack.temporal), STARTS, CALLERS, label)


async def _missing(stack: Stack, jobs: list[str]) -> int:
    """Waits until every job has its run; how many had none when first asked."""
    client = await Client.connect(stack.temporal)
    late = 0
    for job in jobs:
        tries = 0
        while True:
            try:
                await client.get_workflow_handle(job).describe()
                break
            except RPCError:
                tries += 1
                await asyncio.sleep(0.02)
        late += tries > 0
    return late


@contextmanager
def _frozen(stack: Stack, *names: str) -> Iterator[None]:
    """Stop these workers' processes for a while, as a debugger would."""
    pids = [json.loads((stack.data / "run" / f"{name}.json").read_text())["pid"] for name in names]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _cancel(run: Run, jobs: list[str]) -> None:
    for job in jobs:
        run.caller.http.post(f"/v1/jobs/{job}/cancel", json={})
    for job in jobs:
        while run.caller.get(f"/v1/jobs/{job}?wait=30")["status"] in ("queued", "running"):
            time.sleep(0.1)


def memory(run: Run) -> dict[str, Any]:
    sizes = pss_by_component(run.stack)
    return {"unit": "MiB PSS", "by_component": sizes, "total": sum(sizes.values())}


def ledger(run: Run) -> dict[str, Any]:
    """Appends up to a million entries, an audit, proofs: on the run's disk, in a database of its own."""
    return ledger_at_size.measure(run.folder / "ledger")


def builds(run: Run) -> dict[str, Any]:
    """What a build costs: the sandbox, a rebuild of the same, a small change in a large site, packing, neighbours."""
    return {
        "sandbox": building.overhead(run.folder / "overhead"),
        "packing": building.packing(run.folder / "packing"),
        "rebuild": building.rebuild(run.stack, run.caller),
        "republish": building.republish(run.stack, run.caller),
        "beside_builds": building.beside_builds(run.stack, run.caller),
    }


MEASURES: dict[str, Callable[[Run], dict[str, Any]]] = {
    "up": up,
    "memory_idle": memory,
    "deploy": deploy,
    "git_push": pushing.measure,
    "rollback_and_promote": rollback_and_promote,
    "requests": requests,
    "services": services,
    "starts": starts,
    "ledger": ledger,
    "builds": builds,
    "memory_after": memory,
}
