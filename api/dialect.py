"""What a dialect says to the gate that both share: who is let in, what a failure looks like, which bodies are large."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from api.auth import Caller
from api.limits import Name
from headway.errors import HeadwayError

Headers = Mapping[bytes, bytes]


class Dialect(Protocol):
    """`headers` are on every answer."""

    headers: Sequence[tuple[bytes, bytes]]

    def problem(self, error: Exception, request_id: str, headers: Mapping[str, str] | None = None) -> Response:
        """Any failure, in this dialect's envelope."""

    def is_open(self, path: str) -> bool:
        """Whether no credential is asked for."""

    def reads_body(self, path: str) -> bool:
        """Whether the route reads the body itself, with a limit of its own."""

    def bucket(self, method: str, path: str) -> Name:
        """Which budget a request draws from."""

    async def within(self, caller: Caller, headers: Headers) -> Caller:
        """The caller as this request sees him. Raises what refuses him."""

    def check(self, headers: Headers) -> None:
        """The last word before the route, for one who was let in and has drawn."""


def add_handlers(app: FastAPI, dialect: Dialect, prefix: str, routers: Iterable[APIRouter]) -> None:
    """Failures of routes leave as the dialect says; a wrong method is told which are right."""
    routes = [(prefix, route) for router in routers for route in router.routes]

    def allowed(path: str) -> str:
        found: set[str] = set()
        for above, route in (*routes, *(("", one) for one in app.routes)):
            if isinstance(route, Route) and route.path_regex.match(path.removeprefix(above)):
                found |= route.methods or set()
        found |= {"HEAD"} if "GET" in found else set()
        return ", ".join(sorted(found))

    async def handle(request: Request, error: Exception) -> Response:
        wrong = isinstance(error, HTTPException) and error.status_code == 405
        headers = {"Allow": allowed(request.url.path)} if wrong else {}
        return dialect.problem(error, request.state.request_id, headers)

    handler: Callable[[Request, Exception], Awaitable[Response]] = handle
    for kind in (HeadwayError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, handler)
