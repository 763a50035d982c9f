"""Two control workers on one PostgreSQL and one Temporal server: one may die, and lost rows are settled once."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from temporalio.client import Client

from store import queue
from store.models import Job
from store.session import Store
from temporal import names
from tests.replicas.conftest import Postgres
from tests.replicas.processes import Installation, Part, Servers, free_port, installation, until
from tests.workflows.engine import binary
from tests.workflows.rows import World

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(240)]
SITES = 10


@pytest.fixture(scope="module")
def temporal() -> Iterator[str]:
    port = free_port()
    named = (names.SITE_ATTRIBUTE, names.ENVIRONMENT_ATTRIBUTE, names.JOB_TYPE_ATTRIBUTE)
    named += (names.COMMIT_ATTRIBUTE, names.DIGEST_ATTRIBUTE)
    attributes = [word for name in named for word in ("--search-attribute", f"{name}=Keyword")]
    process = subprocess.Popen(
        [
            binary("temporal"),
            "server",
            "start-dev",
            "--headless",
            "--port",
            str(port),
            "--log-level=error",
            *attributes,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def controls(postgres: Postgres, temporal: str) -> Iterator[tuple[Installation, Part, list[Part]]]:
    """One API, one host, two control workers."""
    servers = Servers(postgres.url, temporal, "http://127.0.0.1:9", "a", "b")
    with tempfile.TemporaryDirectory(prefix="hwr-") as folder, installation(Path(folder), servers) as made:
        api = made.api("api")
        made.wait(api)
        two = [made.worker(f"control{n}", "control") for n in (1, 2)]
        made.wait(made.worker("host", "host"), *two)
        yield made, api, two


def test_a_control_worker_killed_among_jobs(controls: tuple[Installation, Part, list[Part]]) -> None:
    made, api, two = controls
    with made.client(api) as client:
        jobs = [
            client.post("/v1/sites", json={"name": f"S {n}"}, headers={"Idempotency-Key": uuid.uuid4().hex}).json()[
                "data"
            ]["id"]
            for n in range(SITES)
        ]
        two[0].kill()
        until(lambda: all(_status(client, job) not in ("queued", "running") for job in jobs), "jobs never ended")
        assert {_status(client, job) for job in jobs} == {"succeeded"}
    fresh = made.worker("control1", "control")
    made.wait(fresh)


def _status(client: httpx.Client, job: str) -> str:
    return str(client.get(f"/v1/jobs/{job}").json()["data"]["status"])


def test_lost_rows_are_settled_once_by_one_reconciler(
    controls: tuple[Installation, Part, list[Part]], postgres: Postgres, temporal: str
) -> None:
    """Rows that were claimed and whose runs do not exist: both workers notice, one run settles them."""
    store = Store.open(postgres.url)
    try:
        world = World.make(store)
        lost = [world.accept_build() for _ in range(4)]
        claimed = [store.in_write(lambda session, id=job.id: queue.claim_job(session, id).rev) for job in lost]

        def rows() -> list[Job]:
            with store.read() as session:
                return [session.get_one(Job, job.id) for job in lost]

        until(lambda: all(row.finished_at is not None for row in rows()), "the rows were never settled")
        for row, rev in zip(rows(), claimed, strict=True):
            assert row.error is not None
            assert (row.status, row.error["code"], row.rev) == ("failed", "job.lost", rev + 1)
    finally:
        store.close()

    async def runs() -> list[tuple[datetime, datetime | None]]:
        client = await Client.connect(temporal)
        return sorted(
            [(run.start_time, run.close_time) async for run in client.list_workflows('WorkflowId = "reconcile"')],
            key=lambda span: span[0],
        )

    spans = asyncio.run(runs())
    assert spans
    for (_, ended), (began, _) in itertools.pairwise(spans):
        assert ended is not None
        assert ended <= began
