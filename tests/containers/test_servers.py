"""Store, objects, workflows and one whole publish on PostgreSQL, Temporal and S3 in containers (testcontainers)."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, text
from temporalio.service import RPCError
from testcontainers.core.container import DockerContainer

from adapters.objects import ObjectStore
from store.migrations import current, newest, upgrade
from store.session import Store
from temporal import names
from temporal.attributes import ALL as ATTRIBUTES
from temporal.client import connect
from temporal.messages import Labels
from tests.adapters import test_objects as objects_cases
from tests.adapters.repositories import Repository
from tests.adapters.weed import ACCESS, SECRET, open_store
from tests.replicas.processes import Servers, installation
from tests.store import test_queue as queue_cases
from tests.workflows import engine as engines
from tests.workflows.rows import World

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]
PASSWORD = uuid.uuid4().hex
IDENTITY = {
    "name": "test",
    "credentials": [{"accessKey": ACCESS, "secretKey": SECRET}],
    "actions": ["Admin", "Read", "Write", "List", "Tagging"],
}


def address(container: DockerContainer, port: int) -> str:
    return f"{container.get_container_host_ip()}:{container.get_exposed_port(port)}"


@pytest.fixture(scope="module")
def database(engine: str, images: dict[str, str]) -> Iterator[str]:
    made = DockerContainer(images["postgres"]).with_exposed_ports(5432).with_env("POSTGRES_PASSWORD", PASSWORD)
    with made.with_env("POSTGRES_USER", "headway").with_env("POSTGRES_DB", "headway") as running:
        url = f"postgresql+psycopg://headway:{PASSWORD}@{address(running, 5432)}/headway"
        probe = create_engine(url, connect_args={"connect_timeout": 2})
        deadline = time.monotonic() + 60
        while True:
            try:
                with probe.connect() as connection:
                    connection.execute(text("SELECT 1"))
                break
            except Exception:
                assert time.monotonic() < deadline, running.get_logs()
                time.sleep(0.1)
        probe.dispose()
        yield url


@pytest.fixture(scope="module")
def temporal(engine: str, images: dict[str, str]) -> Iterator[str]:
    made = DockerContainer(images["temporalio/server"]).with_exposed_ports(7233)
    if not os.environ.get("HEADWAY_STANDINS"):
        # The real server wants a database first; the command line's image has the development server in it.
        made = DockerContainer("temporalio/temporal:latest").with_exposed_ports(7233)
        made = made.with_command("server start-dev --ip 0.0.0.0 --headless")
    with made as running:
        at = address(running, 7233)

        async def prepared() -> None:
            from temporalio.api.enums.v1 import IndexedValueType
            from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest

            client = await connect(at)
            kinds = {key.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD for key in ATTRIBUTES}
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(namespace="default", search_attributes=kinds)
            )

        deadline = time.monotonic() + 60
        while True:
            try:
                asyncio.run(prepared())
                break
            except (RPCError, RuntimeError):
                assert time.monotonic() < deadline, running.get_logs()
                time.sleep(0.2)
        yield at


@pytest.fixture(scope="module")
def s3(engine: str, images: dict[str, str]) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "s3.json")
        config.write_text(json.dumps({"identities": [IDENTITY]}))
        Path(folder).chmod(0o755)
        made = DockerContainer(images["chrislusf/seaweedfs"]).with_exposed_ports(8333)
        made = made.with_volume_mapping(str(config), "/etc/s3.json").with_kwargs(entrypoint="weed")
        words = "mini -dir=/data -ip.bind=0.0.0.0 -s3.port=8333 -s3.port.iceberg=0 -s3.port.lance=0 -webdav=false"
        with made.with_command(f"{words} -admin.ui=false -master.telemetry=false -s3.config=/etc/s3.json") as running:
            yield f"http://{address(running, 8333)}"


@pytest.fixture
def schema(database: str) -> Iterator[str]:
    """A migrated schema of its own in the container's database."""
    name = f"t{uuid.uuid4().hex[:12]}"
    admin = create_engine(database, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE SCHEMA {name}"))
    url = f"{database}?options=-csearch_path%3D{name}"
    upgrade(url)
    yield url
    with admin.connect() as connection:
        connection.execute(text(f"DROP SCHEMA {name} CASCADE"))
    admin.dispose()


QUEUE = (
    queue_cases.test_many_claimers_get_one_rollout,
    queue_cases.test_sixteen_writers_are_never_told_that_the_database_is_locked,
)


@pytest.mark.parametrize("case", QUEUE)
def test_the_schema_and_the_queue_on_postgresql(schema: str, case: Callable[[World], None]) -> None:
    assert current(schema) == newest()
    assert upgrade(schema) == newest()
    opened = Store.open(schema)
    try:
        case(World.make(opened))
    finally:
        opened.close()


def test_objects_are_written_once_and_presigned(s3: str) -> None:
    store: ObjectStore = open_store(s3, "containers")
    objects_cases.test_an_object_is_written_once_and_read_back(store)
    objects_cases.test_only_one_of_many_writers_wins(store)
    body = b"presigned"
    url, headers = store.presign_put("by-address", objects_cases.sha(body), len(body), 60)
    assert httpx.put(url, content=body, headers=headers).status_code == 200
    assert httpx.get(store.presign_get("by-address", 60)).content == body
    assert httpx.get(store.presign_get("by-address", 60).replace("Signature=", "Signature=0")).status_code == 403


def test_a_workflow_on_temporal(temporal: str, tmp_path: Path) -> None:
    async def go() -> None:
        client = await connect(temporal)
        async with engines._running(client, tmp_path, False, {}) as made:
            job = made.world.accept_build()
            # What the outbox does: a start that was not answered in half a second is made again under the same id.
            labels = Labels(site="acme", environment="production", job_type=job.type)
            while not await made.starts.start(job.id, job.type, labels=labels):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
            job = await made.ended(job)
            assert job.status == "succeeded"
            described = await client.get_workflow_handle(job.id).describe()
            assert described.typed_search_attributes.search_attributes
            assert described.task_queue == names.CONTROL

    asyncio.run(go())


def test_one_whole_publish(schema: str, temporal: str, s3: str) -> None:
    """Every role as a process of its own on the three containers: from a git ref to sealed files on the host."""
    servers = Servers(schema, temporal, s3, ACCESS, SECRET)
    with tempfile.TemporaryDirectory(prefix="hwp-") as folder, installation(Path(folder), servers) as made:
        repository = Repository(made.folder / "repositories" / "shop")
        repository.commit({"index.html": "<h1>from a container</h1>"})
        api = made.api("api")
        made.wait(api)
        made.wait(*[made.worker(role, role) for role in ("control", "signing", "builder", "host")])
        with made.client(api) as client:
            body = {"name": "Shop", "runtime": "static", "profile": "auto", "repository": repository.path.as_uri()}
            site = _ended(client, client.post("/v1/sites", json=body))["resource"]["id"]
            rows = client.get(f"/v1/sites/{site}/environments").json()["data"]
            production = next(row["id"] for row in rows if row["kind"] == "production")
            pushed = _ended(
                client, client.post(f"/v1/sites/{site}/deployments", json={"ref": "main", "target": production})
            )
        assert pushed["result"]["release_id"]
        served = made.folder / "host" / "env" / production / "current" / "root" / "index.html"
        assert served.read_text() == "<h1>from a container</h1>"


def _ended(client: httpx.Client, answer: httpx.Response) -> dict:
    assert answer.status_code == 202, answer.text
    job = answer.json()["data"]
    deadline = time.monotonic() + 120
    while job["status"] in ("queued", "running"):
        assert time.monotonic() < deadline, job
        job = client.get(f"/v1/jobs/{job['id']}?wait=10").json()["data"]
    assert job["status"] == "succeeded", job
    return job
