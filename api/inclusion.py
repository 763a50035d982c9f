"""The routers of a dialect, included once for all apps of a process."""

from __future__ import annotations

from functools import cache
from types import ModuleType

from fastapi import APIRouter
from starlette.routing import BaseRoute


@cache
def included(modules: tuple[ModuleType, ...], prefix: str) -> list[BaseRoute]:
    """The routes of these modules' `router`s below `prefix`.

    FastAPI reads the signatures of a router's routes when a request first comes by, and keeps what it read in the
    inclusion; a process with many apps (a test) would read them for each of them.
    """
    whole = APIRouter(generate_unique_id_function=lambda route: route.name)
    for module in modules:
        whole.include_router(module.router, prefix=prefix)
    return whole.routes
