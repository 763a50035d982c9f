"""`create_miosa`: the dialect as an app of its own, and the branch that leads its paths to it."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from api.gate import App, Receive, Scope, Send
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
from api.miosa.document import openapi_of
from api.miosa.gate import PREFIX, MiosaGate
from api.miosa.problems import from_exception, problem
from api.parts import Parts
from headway import __version__
from headway.errors import HeadwayError

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
    _documents(app)
    for kind in (HeadwayError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _handle)
    app.add_middleware(MiosaGate, parts=parts)
    return app


async def _handle(request: Request, error: Exception) -> Response:
    headers = {}
    if isinstance(error, HTTPException) and error.status_code == 405:
        headers["Allow"] = ", ".join(allowed_methods(request.url.path))
    return problem(from_exception(error), request.state.request_id, headers)


def allowed_methods(path: str) -> list[str]:
    below = path.removeprefix(PREFIX)
    found: set[str] = set()
    for module in ROUTERS:
        for route in module.router.routes:
            if isinstance(route, Route) and route.path_regex.match(below):
                found |= route.methods or set()
    return sorted(found)


def _documents(app: FastAPI) -> None:
    async def openapi() -> Response:
        return JSONResponse(openapi_of(app, __version__))

    async def health() -> Response:
        return JSONResponse({"data": {"status": "ok", "version": __version__}})

    app.add_api_route(f"{PREFIX}/openapi.json", openapi, include_in_schema=False)
    app.add_api_route(f"{PREFIX}/health", health, include_in_schema=False)
