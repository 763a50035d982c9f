"""The folder of routes: `ROUTES/<host name> → ../env/<env_id>`. Adding and removing are single renames, idempotent."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from adapters.hosting.durable import point, sync_folder
from headway.errors import HeadwayError
from headway.ids import is_id

# The same expression stands in Caddy's configuration, in front of every path that is made of a Host header.
HOSTNAME: Final = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"

_HOSTNAME = re.compile(HOSTNAME)
_PREFIX = "../env/"


def check_hostname(name: str) -> str:
    """`name` itself: lower-case letters, digits and inner hyphens, labels of at most 63, 253 in all (RFC 1123).

    Raises request.invalid_parameter.
    """
    if len(name) > 253 or not _HOSTNAME.fullmatch(name) or any(len(label) > 63 for label in name.split(".")):
        raise HeadwayError("request.invalid_parameter", f"{name[:64]!r} is not a host name.", param="hostname")
    return name


def routes_of(routes: Path, env_id: str) -> list[str]:
    """The host names that lead to an environment, sorted."""
    return sorted(name for name, env in list_routes(routes).items() if env == env_id)


def list_routes(routes: Path) -> dict[str, str]:
    """Environment by host name."""
    found = {}
    with os.scandir(routes) as entries:
        for entry in entries:
            if entry.is_symlink() and _HOSTNAME.fullmatch(entry.name):
                with contextlib.suppress(FileNotFoundError):
                    found[entry.name] = os.readlink(entry.path).removeprefix(_PREFIX)
    return found


def add_route(routes: Path, name: str, env_id: str) -> None:
    """Lead a host name to an environment, also where it led to another one before."""
    check_hostname(name)
    if not is_id(env_id):
        raise HeadwayError("internal.error", "An environment's id has an impossible shape.")
    link, target = routes / name, _PREFIX + env_id
    with contextlib.suppress(FileNotFoundError):
        if os.readlink(link) == target:
            return
    point(link, target)


def remove_route(routes: Path, name: str, env_id: str | None = None) -> None:
    """Take a host name away; with `env_id` only if it still leads there."""
    link = routes / check_hostname(name)
    with contextlib.suppress(FileNotFoundError):
        if env_id is None or os.readlink(link) == _PREFIX + env_id:
            os.unlink(link)
            sync_folder(routes)


def set_routes(routes: Path, env_id: str, names: Iterable[str]) -> None:
    """Let exactly these names lead to the environment: additions first, so that a renamed site is never without one."""
    wanted = set(names)
    for name in sorted(wanted):
        add_route(routes, name, env_id)
    for name in routes_of(routes, env_id):
        if name not in wanted:
            remove_route(routes, name, env_id)
