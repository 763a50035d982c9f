"""The API's git server on a real port, real git in front of it, and a double of the engine behind it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvicorn
from sqlmodel import select

from adapters.githost.backend import Backend
from adapters.githost.pushhead import PushLimits
from api.app import create_app
from api.git.parts import GitParts
from api.main import QuietServer
from headway.broker import Event
from store.models import Build, Environment, Job, Rollout, utcnow
from store.outcomes import activate, end_job, end_rollout, retire_environment
from store.pushes import Previews
from store.queue import claim_job
from store.session import Store
from temporal.messages import Labels
from tests.adapters.repositories import QUIET, Repository
from tests.api.world import World, make_parts, open_store
from api.bootstrap import bootstrap
from api.limits import Budgets

Json = dict[str, Any]


@dataclass
class Engine:
    """Ends every job as soon as it is started: well, unless a commit message or a hold says otherwise."""

    store: Store
    world: World | None = None
    started: list[tuple[str, str]] = field(default_factory=list)
    canceled: list[str] = field(default_factory=list)
    fail: str | None = None
    held: asyncio.Event | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self, job_id: str, job_type: str, *, labels: Labels) -> bool:
        self.started.append((job_id, job_type))
        task = asyncio.create_task(self._run(job_id, job_type))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return True

    async def cancel(self, job_id: str) -> None:
        self.canceled.append(job_id)

    async def _run(self, job_id: str, job_type: str) -> None:
        if job_type == "deployment.push" and self.held is not None:
            await self.held.wait()
        await asyncio.to_thread(self._end, job_id, self.fail)

    def _end(self, job_id: str, fail: str | None) -> None:
        assert self.world is not None
        with self.store.write() as session:
            job = session.get_one(Job, job_id)
            if job.finished_at is not None:
                return
            claim_job(session, job_id)
            if job.type in ("site.create", "environment.create"):
                activate(session, job.env_id or "")
                end_job(session, job, "succeeded", result={})
                return
            if job.type == "environment.delete":
                retire_environment(session, job.env_id or "")
                end_job(session, job, "succeeded", result={})
                return
            event = Event(
                kind="log",
                ts="2026-01-01T00:00:00.000Z",
                stream="stdout",
                stage="build",
                line="\x1b[32mbuilt\x1b[0m it",
            )
            self.world.parts.events.append(job_id, "builder-1", 1, [event])
            rollout = session.exec(select(Rollout).where(Rollout.job_id == job_id)).one()
            if job.cancel_requested_at is not None:
                end_rollout(session, rollout, "canceled", {"code": "job.canceled", "message": "Canceled."})
            elif fail is not None:
                end_rollout(session, rollout, "failed", {"code": fail, "message": "It did not build."})
            else:
                rollout.status, rollout.finished_at = "succeeded", utcnow()
                end_job(session, job, "succeeded", result={})


@dataclass
class GitWorld:
    """`api` is everything else; `port` is where git is served."""

    api: World
    engine: Engine
    port: int

    def url(self, name: str, key: str | None) -> str:
        user = f"any:{key}@" if key else ""
        return f"http://{user}127.0.0.1:{self.port}/git/{name}.git"

    @property
    def key(self) -> str:
        return (self.api.folder / "admin.key").read_text().strip()

    async def site(self, name: str = "Acme Store", **more: Any) -> Json:
        from tests.api.world import data

        job = data(await self.api.admin.post("/v1/sites", json={"name": name, **more}))
        while self.api.one(Job, id=job["id"]).finished_at is None:
            await asyncio.sleep(0.01)
        return dict(data(await self.api.admin.get(f"/v1/sites/{job['resource']['id']}")))

    def repository(self, name: str = "work") -> Repository:
        return Repository(self.api.folder / "clients" / name)

    async def push(
        self, repository: Repository, *words: str, site: str = "acme-store", key: str | None = "admin"
    ) -> Pushed:
        return await git(repository.path, "push", self.url(site, self.key if key == "admin" else key), *words)

    def branches(self, site_id: str) -> dict[str, str]:
        """What anybody can see."""
        path = self.api.folder / "repos" / f"{site_id}.git"
        import subprocess

        out = subprocess.run(
            ["git", "-C", str(path), "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags"],
            env={**QUIET, "GIT_CONFIG_GLOBAL": str(self.api.folder / "repos" / ".headway" / "gitconfig")},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        return dict(line.removeprefix("refs/heads/").split(" ") for line in out.splitlines())  # type: ignore[misc]

    async def until(self, good: Callable[[], bool], what: str) -> None:
        for _ in range(3000):
            if await asyncio.to_thread(good):
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"gave up waiting until {what}")


@dataclass(frozen=True)
class Pushed:
    code: int
    text: str

    @property
    def ok(self) -> bool:
        return self.code == 0


async def git(folder: Path, *words: str, env: dict[str, str] | None = None) -> Pushed:
    process = await asyncio.create_subprocess_exec(
        "git",
        *words,
        cwd=folder,
        env={**QUIET, "GIT_TERMINAL_PROMPT": "0", **(env or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 120)
    return Pushed(process.returncode or 0, out.decode("utf-8", "replace"))


@contextlib.asynccontextmanager
async def git_world(
    folder: Path, limits: PushLimits | None = None, previews: Previews | None = None, **more: Any
) -> AsyncIterator[GitWorld]:
    store = open_store(folder, None)
    bootstrap(store, folder)
    engine = Engine(store)
    backend = Backend.install(folder / "repos", limits or PushLimits())
    parts = replace(
        make_parts(folder, store, Budgets(on=False)),
        starts=engine,
        git=GitParts(backend, previews or Previews(), **more),
    )
    app = create_app(parts)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="on", ws="none", timeout_graceful_shutdown=2
    )
    server = QuietServer(config)
    from api.main import listen_tcp

    sock = listen_tcp("127.0.0.1", 0)
    port = sock.getsockname()[1]
    serving = asyncio.create_task(server.serve_quietly([sock]))
    import httpx

    world = World(folder, store, engine, parts.objects, parts, app, httpx.AsyncClient())  # type: ignore[arg-type]
    engine.world = world
    world.admin = world.client((folder / "admin.key").read_text().strip())
    await server.up.wait()
    try:
        yield GitWorld(world, engine, port)
    finally:
        for client in world.clients:
            await client.aclose()
        parts.watch.close()
        server.should_exit = True
        await serving
        store.close()


__all__ = ["Awaitable", "Build", "Engine", "Environment", "GitWorld", "Pushed", "git", "git_world", "os"]
