"""`create_app`: the public API. Everything is injected; connections open and loops start in its lifespan."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Annotated

import anyio
from fastapi import FastAPI, Query, Request
from sqlalchemy import text
from starlette.responses import HTMLResponse, JSONResponse, Response

from api.dialect import add_handlers
from api.document import docs_page, openapi_of
from api.gate import Gate
from api.git.door import GitDoor
from api.git.keeper import BranchKeeper
from api.housekeeping import Housekeeping
from api.inclusion import included
from api.log_keeping import LogKeeping
from api.managed import (
    artifacts,
    audit,
    bills,
    branch_routes,
    builders,
    builds,
    caches,
    configuration,
    deployments,
    domains,
    environments,
    explain,
    forge_reports,
    forges,
    hosts,
    inputs,
    integrity,
    jobs,
    keys,
    ledger,
    logs,
    notifications,
    passwords,
    policies,
    remotes,
    requests,
    retention,
    sites,
    teams,
    unsupported,
    webhooks,
)
from api.managed.dialect import PREFIX, Managed
from api.miosa.app import Branch, create_miosa
from api.parts import Parts
from api.starting import Outbox
from headway import __version__
from store.domains import is_served

log = logging.getLogger("headway.api")
# In the order in which a request is looked for in them: what is asked most comes first.
ROUTERS = (
    builds,
    deployments,
    jobs,
    environments,
    sites,
    artifacts,
    teams,
    keys,
    branch_routes,
    passwords,
    domains,
    configuration,
    bills,
    caches,
    policies,
    explain,
    ledger,
    audit,
    hosts,
    builders,
    logs,
    inputs,
    requests,
    retention,
    integrity,
    webhooks,
    notifications,
    forges,
    remotes,
    forge_reports,
    unsupported,
)


def create_app(parts: Parts) -> FastAPI:
    """The app; its lifespan runs the watcher, the outbox and the writer of last uses."""
    app = FastAPI(
        title="Headway",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan(parts),
        generate_unique_id_function=lambda route: route.name,
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    app.state.parts = parts
    app.router.routes.extend(included(ROUTERS, PREFIX))
    _documents(app, parts)
    dialect = Managed(parts.docs_url)
    add_handlers(app, dialect, PREFIX, [module.router for module in ROUTERS])
    app.add_middleware(Gate, dialect=dialect, auth=parts.auth, limiter=parts.limiter)
    app.add_middleware(Branch, other=create_miosa(parts))
    app.add_middleware(GitDoor, parts=parts)
    return app


def _lifespan(parts: Parts) -> Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # A task group's cancellation waits for work in threads, so that no session outlives the store.
        async with anyio.create_task_group() as group:
            group.start_soon(parts.watch.run)
            group.start_soon(Outbox(parts.store, parts.starts).run)
            group.start_soon(_write_uses, parts)
            keeping = LogKeeping(parts.store, parts.objects, parts.events)
            parts.events.archive = keeping
            group.start_soon(keeping.run)
            seen = (parts.logs, parts.requests)
            if parts.git is not None:
                group.start_soon(BranchKeeper(parts.store, parts.git.backend.repositories).run)
            housekeeping = Housekeeping(
                parts.store, parts.events, parts.job_retention, seen, keeping, parts.starts, inputs=parts.inputs
            )
            group.start_soon(housekeeping.run)
            try:
                yield
            finally:
                parts.watch.close()
                group.cancel_scope.cancel()
        with contextlib.suppress(Exception):
            await parts.auth.write_uses()

    return lifespan


async def _write_uses(parts: Parts) -> None:
    while True:
        await asyncio.sleep(5)
        try:
            await parts.auth.write_uses()
            await anyio.to_thread.run_sync(forges.write_forgeries, parts)
        except Exception as error:
            log.warning("last uses are written later: %s", type(error).__name__)


def _documents(app: FastAPI, parts: Parts) -> None:
    async def openapi() -> Response:
        return JSONResponse(openapi_of(app, __version__))

    async def docs() -> Response:
        return HTMLResponse(docs_page(openapi_of(app, __version__)))

    async def health() -> Response:
        def look() -> None:
            with parts.store.read() as session:
                session.execute(text("SELECT 1"))

        await anyio.to_thread.run_sync(look)
        return JSONResponse({"status": "ok", "version": __version__})

    async def ask(domain: Annotated[str, Query(min_length=1, max_length=253)]) -> Response:
        """Whether the web server may get a certificate for a name: it leads to an environment."""

        def look() -> bool:
            with parts.store.read() as session:
                return is_served(session, domain.lower().removesuffix("."))

        served = await anyio.to_thread.run_sync(look)
        return JSONResponse({"domain": domain, "served": served}, 200 if served else 404)

    async def hook(hook_id: str, request: Request) -> Response:
        return await forges.take(parts, hook_id, request)

    app.add_api_route("/hooks/{hook_id}", hook, methods=["POST"], include_in_schema=False)
    app.add_api_route("/tls/ask", ask, include_in_schema=False)
    app.add_api_route("/openapi.json", openapi, include_in_schema=False)
    for path in ("/", "/docs"):
        app.add_api_route(path, docs, include_in_schema=False)
    app.add_api_route("/health", health, include_in_schema=False)
