"""The routers of a dialect, put below its prefix once for all apps of a process."""

from __future__ import annotations

from copy import copy
from functools import cache
from types import ModuleType

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, compile_path


@cache
def included(modules: tuple[ModuleType, ...], prefix: str) -> list[BaseRoute]:
    """The routes of these modules' `router`s below `prefix`, each with its function's name for an id.

    Including a router would read the signature of each of its routes a second time, on the first request: a second
    and a half of a start. Nothing in a route depends on its prefix but the path and what is made from it.
    """
    return [_below(prefix, route) for module in modules for route in module.router.routes]


def _below(prefix: str, route: BaseRoute) -> BaseRoute:
    if not isinstance(route, APIRoute):
        raise TypeError(f"{route!r} is not a route of FastAPI's.")
    moved = copy(route)
    moved.path = prefix + route.path
    moved.path_regex, moved.path_format, moved.param_convertors = compile_path(moved.path)
    moved.unique_id = route.operation_id or route.name
    return moved
