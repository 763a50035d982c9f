"""A whole API on a real SQLite file, with callers of several tenants."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from sqlmodel import Session, col, select

from adapters.config.vault import Vault, make_key_file
from adapters.domains.records import Plan
from adapters.notices.notifier import Notifier
from adapters.webhooks.targets import Targets
from api.app import create_app
from api.auth import Authenticator
from api.bootstrap import bootstrap
from api.events import EventLog
from api.inputs import Inputs
from api.instance_logs import InstanceLogs
from api.limits import Budgets, RateLimiter
from api.parts import Addresses, Parts
from api.repositories import RepositoryPolicy
from api.requests import Requests
from api.watch import Watch
from headway.ids import new_id
from store import migrations
from store.models import Artifact, Build, Environment, Job, Rollout, Site, utcnow
from store.outcomes import activate, end_job, record_live
from store.queue import claim_job
from store.session import Store
from tests.api.doubles import MemoryObjects, RecordingStarts
from tests.workflows.rows import claim_next

Json = dict[str, Any]


@dataclass
class World:
    folder: Path
    store: Store
    starts: RecordingStarts
    objects: MemoryObjects
    parts: Parts
    app: FastAPI
    clients: list[httpx.AsyncClient] = field(default_factory=list)
    admin: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        self.admin = self.client((self.folder / "admin.key").read_text().strip())

    def client(self, key: str | None, **options: Any) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=self.app, client=options.pop("address", ("127.0.0.1", 4000)))
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        made = httpx.AsyncClient(transport=transport, base_url="http://api.test", headers=headers, **options)
        self.clients.append(made)
        return made

    async def tenant(self, name: str, role: str = "owner", scopes: Any = ("*",)) -> tuple[str, httpx.AsyncClient]:
        """A team with an owner, and a client that acts as a member of it with this role."""
        team = data(await self.admin.post("/v1/teams", json={"name": name}))
        members = f"/v1/teams/{team['id']}/members"
        email = f"{name.lower()}-owner@example.test"
        owner = data(await self.admin.post(members, json={"email": email, "name": f"{name} owner", "role": "owner"}))
        account = owner["account_id"]
        if role != "owner":
            email = f"{name.lower()}-{role}@example.test"
            account = data(await self.admin.post(members, json={"email": email, "name": role, "role": role}))[
                "account_id"
            ]
        return team["id"], self.client(await self.key(team["id"], account, scopes))

    async def key(self, team_id: str, account_id: str | None, scopes: Any, **more: Any) -> str:
        body = {"name": "k", "scopes": list(scopes) if not isinstance(scopes, str) else scopes, "team_id": team_id}
        if account_id:
            body["account_id"] = account_id
        return str(data(await self.admin.post("/v1/api-keys", json={**body, **more}))["secret"])

    async def site(self, client: httpx.AsyncClient, name: str = "Acme Store", **more: Any) -> Json:
        """An active site with its active production environment."""
        job = data(await client.post("/v1/sites", json={"name": name, **more}))
        self.provision(job["id"])
        return data(await client.get(f"/v1/sites/{job['resource']['id']}"))

    async def environment(self, client: httpx.AsyncClient, site_id: str, kind: str, branch: str) -> Json:
        path = f"/v1/sites/{site_id}/environments"
        job = data(await client.post(path, json={"kind": kind, "branch": branch}))
        self.provision(job["id"])
        return data(await client.get(f"{path}/{job['resource']['id']}"))

    def provision(self, job_id: str) -> None:
        """What the workflow of a new site or environment does to the rows."""
        with self.store.write() as session:
            job = claim_job(session, job_id)
            activate(session, job.env_id or "")
            end_job(session, job, "succeeded", result={"env_id": job.env_id})

    def artifact(
        self, site_id: str, env_id: str, digest: str = "a" * 64, ref: str = "main", kind: str = "static"
    ) -> str:
        """A signed artifact of a build that has succeeded."""
        artifact_id, build_id = new_id("art"), new_id("build")
        with self.store.write() as session:
            session.add(
                Build(
                    id=build_id,
                    site_id=site_id,
                    env_id=env_id,
                    job_id=new_id("job"),
                    ref=ref,
                    status="succeeded",
                    artifact_id=artifact_id,
                    manifest_sha256=digest,
                    finished_at=utcnow(),
                )
            )
            session.add(
                Artifact(
                    id=artifact_id,
                    site_id=site_id,
                    digest=digest,
                    kind=kind,
                    profile=kind,
                    size_bytes=10,
                    files=1,
                    build_id=build_id,
                    commit_sha="c" * 40,
                    ref=ref,
                    key_hint="hint",
                    signed_at=utcnow(),
                )
            )
        return artifact_id

    def roll(self, env_id: str) -> str:
        """Carry out the next rollout of an environment's queue; the release's id."""
        with self.store.write() as session:
            rollout = claim_next(session, env_id)
            assert rollout is not None
            record_live(session, rollout.id, None)
            return rollout.release_id or ""

    def one(self, table: Any, **wanted: Any) -> Any:
        with self.store.read() as session:
            return session.exec(select(table).where(*(col(getattr(table, k)) == v for k, v in wanted.items()))).one()

    def count(self, table: Any) -> int:
        with self.store.read() as session:
            return len(session.exec(select(table)).all())

    def change(self, table: Any, id: str, **values: Any) -> None:
        with self.store.write() as session:
            row = session.get_one(table, id)
            for name, value in values.items():
                setattr(row, name, value)
            if table is Job:
                row.rev += 1


def data(answer: httpx.Response) -> Any:
    assert answer.status_code < 300, f"{answer.status_code}: {answer.text}"
    return answer.json()["data"]


def error(answer: httpx.Response, status: int) -> Json:
    assert answer.status_code == status, f"{answer.status_code}: {answer.text}"
    body = answer.json()
    assert set(body) == {"error", "request_id"}
    assert body["error"]["doc_url"] == f"https://docs.test/reference/error-codes/#{body['error']['code']}"
    assert body["request_id"] == answer.headers["x-request-id"]
    return dict(body["error"])


def make_parts(folder: Path, store: Store, budgets: Budgets, local: tuple[Path, ...] = ()) -> Parts:
    make_key_file(folder / "config.key")
    make_key_file(folder / "webhooks.key")
    logs = InstanceLogs(folder / "logs", 1 << 20)
    return Parts(
        store=store,
        starts=RecordingStarts(),
        events=EventLog(folder / "events"),
        logs=logs,
        requests=Requests(folder / "requests"),
        inputs=Inputs(folder / "events" / "inputs", 1 << 20),
        watch=Watch(store, logs=logs, every=0.02),
        auth=Authenticator(store),
        limiter=RateLimiter(budgets),
        objects=MemoryObjects(),
        addresses=Addresses("sites.test", lambda name: f"http://{name}:7071"),
        repositories=RepositoryPolicy(local=local),
        vault=Vault(folder / "config.key"),
        webhook_vault=Vault(folder / "webhooks.key"),
        targets=Targets(["receiver.test", "127.0.0.1"]),
        notifier=Notifier(["127.0.0.1"]),
        signing_key=folder / "keys" / "signing.pub",
        docs_url="https://docs.test",
        domains=Plan("edge.test", ("192.0.2.7",)),
        api_url="http://api.test",
        patience=0.0,
    )


@cache
def template() -> Path:
    """Folders `empty` (a migrated SQLite file) and `begun` (with the operator's rows and files): slow to make."""
    folder = Path(tempfile.mkdtemp(prefix="headway-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "empty").mkdir()
    migrations.upgrade(f"sqlite:///{folder / 'empty' / 'headway.db'}")
    shutil.copytree(folder / "empty", folder / "begun")
    store = Store.open(f"sqlite:///{folder / 'begun' / 'headway.db'}")
    bootstrap(store, folder / "begun")
    store.close()
    return folder


def open_store(folder: Path, url: str | None) -> Store:
    """Migrated, without a row."""
    if url is None:
        return _open_copy("empty", folder)
    migrations.upgrade(url)
    return Store.open(url)


def begin(folder: Path, url: str | None = None) -> Store:
    """A store in which the API has been started once, with the files that it leaves in the folder."""
    if url is None:
        return _open_copy("begun", folder)
    store = open_store(folder, url)
    bootstrap(store, folder)
    return store


def _open_copy(name: str, folder: Path) -> Store:
    if not (folder / "headway.db").exists():
        shutil.copytree(template() / name, folder, dirs_exist_ok=True)
    return Store.open(f"sqlite:///{folder / 'headway.db'}")


@asynccontextmanager
async def world(
    folder: Path, budgets: Budgets | None = None, url: str | None = None, local: tuple[Path, ...] = ()
) -> AsyncIterator[World]:
    """The whole API, its lifespan running."""
    store = begin(folder, url)
    parts = make_parts(folder, store, budgets or Budgets(on=False), local)
    app = create_app(parts)
    made = World(folder, store, parts.starts, parts.objects, parts, app)  # type: ignore[arg-type]
    async with app.router.lifespan_context(app):
        try:
            yield made
        finally:
            for client in made.clients:
                await client.aclose()
    store.close()


__all__ = ["Environment", "Rollout", "Session", "Site", "World", "data", "error", "world"]
