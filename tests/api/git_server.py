"""The API's git server on a port, real git in front of it, and a double of the engine behind it that ends jobs."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from sqlmodel import select

from adapters.githost.backend import Backend
from adapters.githost.pushhead import PushLimits
from api.app import create_app
from api.git.parts import GitParts
from api.limits import Budgets
from api.main import QuietServer, listen_tcp
from headway.broker import Event
from store.models import Job, Rollout, utcnow
from store.outcomes import activate, end_job, end_rollout, retire_environment
from store.pushes import Previews
from store.queue import claim_job
from store.session import Store
from temporal.messages import Labels
from tests.adapters.repositories import QUIET, Repository
from tests.api.world import World, begin, data, make_parts

Json = dict[str, Any]


@dataclass
class Engine:
    """Ends every job when it is started; a push when nobody holds it, and with `fail` if that is set."""

    store: Store
    world: World | None = None
    started: list[tuple[str, str]] = field(default_factory=list)
    canceled: list[str] = field(default_factory=list)
    fail: str | None = None
    free: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self, job_id: str, job_type: str, *, labels: Labels, behind: bool = False) -> bool:  # noqa: ARG002
        assert labels.site
        # As in Temporal: starting a run that is there is no second start, and the outbox may ask again.
        if (job_id, job_type) in self.started:
            return True
        self.started.append((job_id, job_type))
        task = asyncio.create_task(self._run(job_id, job_type))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def cancel(self, job_id: str) -> None:
        self.canceled.append(job_id)

    @property
    def pushes(self) -> list[str]:
        return [job_id for job_id, kind in self.started if kind == "deployment.push"]

    async def _run(self, job_id: str, job_type: str) -> None:
        if job_type == "deployment.push":
            await self.free.wait()
        await asyncio.to_thread(self._end, job_id)

    def _end(self, job_id: str) -> None:
        with self.store.write() as session:
            job = session.get_one(Job, job_id)
            if job.finished_at is not None:
                return
            claim_job(session, job_id)
            if job.type == "deployment.push":
                self._end_push(job, session.exec(select(Rollout).where(Rollout.job_id == job_id)).one(), session)
                return
            if job.type == "environment.delete":
                retire_environment(session, job.env_id or "")
            else:
                activate(session, job.env_id or "")
            end_job(session, job, "succeeded", result={})

    def _end_push(self, job: Job, rollout: Rollout, session: Any) -> None:
        assert self.world is not None
        line = "\x1b[32mit is built\x1b[0m\x07"
        event = Event(kind="log", ts="2026-01-01T00:00:00.000Z", stream="stdout", stage="build", line=line)
        self.world.parts.events.append(job.id, "builder-1", 1, [event])
        if job.cancel_requested_at is not None:
            end_rollout(session, rollout, "canceled", {"code": "job.canceled", "message": "Canceled."})
        elif self.fail is not None:
            end_rollout(session, rollout, "failed", {"code": self.fail, "message": "It did not build."})
        else:
            rollout.status, rollout.finished_at = "succeeded", utcnow()
            end_job(session, job, "succeeded", result={})


@dataclass(frozen=True)
class Done:
    """What a git said, and how it ended."""

    code: int
    text: str

    @property
    def ok(self) -> bool:
        return self.code == 0


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

    async def site(self, name: str = "Acme", client: httpx.AsyncClient | None = None, **more: Any) -> Json:
        caller = client or self.api.admin
        job = data(await caller.post("/v1/sites", json={"name": name, **more}))
        await self.until(lambda: self.ended(job["id"]), "the site is made")
        return dict(data(await caller.get(f"/v1/sites/{job['resource']['id']}")))

    def ended(self, job_id: str) -> bool:
        return self.api.one(Job, id=job_id).finished_at is not None

    def repository(self, name: str = "work") -> Repository:
        return Repository(self.api.folder / "clients" / name)

    async def push(
        self, work: Repository, *words: str, site: str = "acme", key: str | None = None, config: str | None = None
    ) -> Done:
        options = ("-c", config) if config else ()
        return await git(work.path, *options, "push", self.url(site, key or self.key), *words)

    async def environments(self, site_id: str) -> dict[str, Json]:
        """By branch."""
        rows = data(await self.api.admin.get(f"/v1/sites/{site_id}/environments?limit=100"))
        return {row["branch"]: row for row in rows}

    def branches(self, site_id: str) -> dict[str, str]:
        """What a visitor of the repository sees below refs/, without `heads/`."""
        done = subprocess.run(
            ["git", "ls-remote", self.url(site_id, self.key), "refs/*"],
            env={**QUIET, "GIT_TERMINAL_PROMPT": "0"},
            capture_output=True,
            text=True,
            check=True,
        )
        pairs = (line.split("\t") for line in done.stdout.splitlines())
        return {ref.removeprefix("refs/heads/"): commit for commit, ref in pairs}

    async def seen(self, site_id: str) -> dict[str, str]:
        return await asyncio.to_thread(self.branches, site_id)

    async def until(self, good: Callable[[], bool], what: str) -> None:
        for _ in range(3000):
            if await asyncio.to_thread(good):
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"gave up waiting until {what}")


async def start_git(folder: Path, *words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        "git",
        *words,
        cwd=folder,
        env={**QUIET, "GIT_TERMINAL_PROMPT": "0"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )


async def git(folder: Path, *words: str) -> Done:
    process = await start_git(folder, *words)
    out, _ = await asyncio.wait_for(process.communicate(), 120)
    return Done(process.returncode or 0, out.decode("utf-8", "replace"))


@contextlib.asynccontextmanager
async def git_world(
    folder: Path,
    limits: PushLimits | None = None,
    previews: Previews | None = None,
    url: str | None = None,
    budgets: Budgets | None = None,
    **more: Any,
) -> AsyncIterator[GitWorld]:
    store = begin(folder, url)
    engine = Engine(store)
    engine.free.set()
    parts = replace(
        make_parts(folder, store, budgets or Budgets(on=False)),
        starts=engine,
        git=GitParts(Backend.install(folder / "repos", limits or PushLimits()), **more),
        previews=previews or Previews(),
    )
    app = create_app(parts)
    server = QuietServer(
        uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", ws="none", timeout_graceful_shutdown=2)
    )
    sock = listen_tcp("127.0.0.1", 0)
    serving = asyncio.create_task(server.serve_quietly([sock]))
    world = World(folder, store, engine, parts.objects, parts, app)  # type: ignore[arg-type]
    engine.world = world
    await server.up.wait()
    try:
        yield GitWorld(world, engine, sock.getsockname()[1])
    finally:
        engine.free.set()
        for client in world.clients:
            await client.aclose()
        parts.watch.close()
        server.should_exit = True
        await serving
        store.close()
