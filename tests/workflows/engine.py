"""A whole engine for one test: a Temporal server, the database, the production control worker, doubles for the rest."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from sqlmodel import SQLModel
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.labels import roll_order
from activities.reconcile import Reconciler
from activities.retention import Retention  # noqa: F401 - its tables, before they are made
from adapters.config.vault import Vault, make_key_file
from api.internal.looks import Looks
from headway.settings import Settings
from headway.supervisor.components import DYNAMIC_CONFIG
from store.models import Job
from store.pushes import Previews
from store.queue import commit_rollout
from store.session import Store
from store.taking import Later, take
from temporal import names
from temporal.attributes import ALL as ATTRIBUTES
from temporal.messages import Labels, RollOrder
from temporal.starts import TemporalStarts
from temporal.worker import Role, control, host_roles, working
from tests.workflows.doubles import Builder, Executor, Host, Remotes, Signer
from tests.workflows.rows import World

PATIENCE = 30.0
# The stack's own: with a server's defaults each step of a workflow takes a tenth of a second.
TUNED = [f"--dynamic-config-value={key}={json.dumps(value)}" for key, value in DYNAMIC_CONFIG.items()]


def binary(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found, f"{name} is not installed"
    return found


@dataclass
class Engine:
    client: Client
    settings: Settings
    store: Store
    world: World
    starts: TemporalStarts
    builder: Builder = field(default_factory=Builder)
    host: Host = field(default_factory=Host)
    executor: Executor | None = None
    remotes: Remotes | None = None
    workers: list[Worker] = field(default_factory=list)
    at_once: str = ""

    async def start(self, job: Job) -> None:
        """`at_once`: the host on which its run begins."""
        labels = Labels(site="acme", environment="production", job_type=job.type, host=self.at_once)
        while not await self.starts.start(job.id, job.type, labels=labels):  # noqa: ASYNC110 – half a second each: a busy machine
            await asyncio.sleep(0.1)

    async def run(self, job: Job) -> Job:
        await self.start(job)
        return await self.ended(job)

    async def ended(self, job: Job) -> Job:
        return await self.until(lambda: self.world.job(job.id), lambda row: row.finished_at is not None)

    async def until(self, read, good):
        """Poll rows until they say so; fails after a generous bound with what they said last."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            value = read()
            if good(value):
                return value
            assert asyncio.get_running_loop().time() < deadline, f"gave up waiting; last seen: {value!r}"
            await asyncio.sleep(0.03)


def run_story(tmp_path: Path, story, **options) -> None:
    """Run one test's coroutine on an engine of its own."""

    async def go() -> None:
        async with engine(tmp_path, **options) as made:
            await story(made)

    asyncio.run(go())


@asynccontextmanager
async def engine(tmp_path: Path, *, reconcile: bool = False, **settings: Any) -> AsyncIterator[Engine]:
    """`settings` are the control worker's own."""
    async with (
        await WorkflowEnvironment.start_local(
            dev_server_existing_path=binary("temporal"),
            search_attributes=list(ATTRIBUTES),
            dev_server_log_level="error",
            dev_server_extra_args=TUNED,
        ) as server,
        _running(server.client, tmp_path, reconcile, settings) as made,
    ):
        yield made


@asynccontextmanager
async def _running(client: Client, tmp_path: Path, reconcile: bool, changes: dict[str, Any]) -> AsyncIterator[Engine]:
    settings = Settings(
        data_dir=tmp_path,
        database_url=f"sqlite:///{tmp_path}/headway.db",
        host_patience=4,
        webhook_private_ok=["127.0.0.1"],
        webhook_waits=[0.05],
        **changes,
    )
    make_key_file(settings.webhook_keys)
    store = Store.open(settings.database)
    SQLModel.metadata.create_all(store.engine)
    made = Engine(client, settings, store, World.make(store), TemporalStarts(client))
    signer, made.executor = Signer(store), Executor(store)
    looks = Looks(
        store, Vault(settings.webhook_keys), "localhost", Previews(), timedelta(seconds=settings.poll_seconds)
    )
    made.remotes = Remotes(looks)
    made.host.commit = lambda rollout_id: store.in_write(lambda session: commit_rollout(session, rollout_id))
    made.host.turn = partial(_turn, store)
    roles = [
        control(settings, client),
        Role(names.BUILDERS, [made.builder.produce, made.executor.execute, made.remotes.look]),
        Role(names.SIGNING, [signer.sign]),
        *host_roles(
            "local",
            [
                made.host.take,
                made.host.roll,
                made.host.prepare,
                made.host.switch,
                made.host.undo,
                made.host.bake,
                made.host.fence,
                made.host.route,
                made.host.retire,
                made.host.run_command,
                made.host.certify,
                made.host.mend,
            ],
        ),
    ]
    async with contextlib.AsyncExitStack() as stack:
        made.workers += await stack.enter_async_context(working(client, roles))
        if reconcile:
            watch = asyncio.create_task(Reconciler(store, client).watch(every=0.2))
            stack.callback(watch.cancel)
        yield made
    store.close()


def _turn(store: Store, job_id: str) -> RollOrder | None:
    """As the broker answers a host."""
    try:
        return store.in_write(lambda session: roll_order(session, take(session, job_id, "local")))
    except Later:
        return None
