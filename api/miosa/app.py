"""`create_miosa`: the dialect as an app of its own, and the branch that leads its paths to it."""

from __future__ import annotations

from typing import Final

import anyio
from fastapi import FastAPI
from starlette.responses import JSONResponse, Response

from api.dialect import add_handlers
from api.gate import App, Gate, Receive, Scope, Send
from api.inclusion import included
from api.miosa import (
    actions,
    commands,
    deployments,
    domains,
    environments,
    feed,
    files,
    keys,
    observing,
    operations,
    publishing,
    sandboxes,
    subscriptions,
    tokens,
    variables,
    versions,
    webhooks,
    workspaces,
)
from api.miosa.dialect import PREFIX, Miosa
from api.miosa.document import openapi_of
from api.parts import Parts
from api.rooms import Rooms
from headway import __version__

# Bodies of files, decoded and being stored at once: each takes some times its size. And those in memory at all.
LARGE_BODIES: Final = 2
READ_BODIES: Final = 4
ROUTERS = (
    deployments,
    publishing,
    versions,
    observing,
    variables,
    environments,
    sandboxes,
    commands,
    files,
    workspaces,
    keys,
    tokens,
    operations,
    domains,
    webhooks,
    subscriptions,
    feed,
    actions,
)


class Branch:
    """Middleware in front of the managed dialect: what lies below `/api/v1` is the other app's.

    A doubled prefix (`/api/v1/api/v1/…`, which the vendor's MCP server sends) is taken for a single one.
    """

    def __init__(self, app: App, *, other: App) -> None:
        self.app, self.other = app, other

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        if scope["type"] != "http" or not (path == PREFIX or path.startswith(PREFIX + "/")):
            await self.app(scope, receive, send)
            return
        if path.startswith(PREFIX + PREFIX + "/"):
            path = path[len(PREFIX) :]
            scope = {**scope, "path": path, "raw_path": path.encode()}
        await self.other(scope, receive, send)


def create_miosa(parts: Parts) -> FastAPI:
    """Shares every part with the managed dialect; loops and connections are the outer app's."""
    app = FastAPI(
        title="Headway, MIOSA dialect",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    app.state.parts = parts
    app.router.routes.extend(included(ROUTERS, PREFIX))
    app.state.large_bodies = anyio.CapacityLimiter(LARGE_BODIES)
    app.state.read_bodies = Rooms(READ_BODIES)
    _documents(app)
    dialect = Miosa(parts.store)
    add_handlers(app, dialect, PREFIX, [module.router for module in ROUTERS])
    app.add_middleware(Gate, dialect=dialect, auth=parts.auth, limiter=parts.limiter)
    return app


def _documents(app: FastAPI) -> None:
    async def openapi() -> Response:
        return JSONResponse(openapi_of(app, __version__))

    async def health() -> Response:
        return JSONResponse({"data": {"status": "ok", "version": __version__}})

    app.add_api_route(f"{PREFIX}/openapi.json", openapi, include_in_schema=False)
    app.add_api_route(f"{PREFIX}/health", health, include_in_schema=False)
