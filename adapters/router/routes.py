"""The folder of routes: `ROUTES/<host name> → ../env/<env_id>`. Adding and removing are single renames, idempotent.

A name that redirects leads to `../redirects/<env_id>/<scheme>@<authority>` instead, a folder with one empty file whose
name says where to: Caddy finds it as it finds the current release.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from adapters.hosting.durable import point, sync_folder, write_file
from headway.errors import HeadwayError
from headway.ids import is_id

# The same expression stands in Caddy's configuration, in front of every path that is made of a Host header.
HOSTNAME: Final = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"

_HOSTNAME = re.compile(HOSTNAME)
_PREFIX = "../env/"
_REDIRECTS = "../redirects/"
_ORIGIN = re.compile(rf"(https?)://({HOSTNAME}(:[0-9]{{1,5}})?)")
# What Caddy looks for in a redirecting name's folder.
REDIRECT: Final = "to@"


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
                    target = os.readlink(entry.path).removeprefix(_PREFIX).removeprefix(_REDIRECTS)
                    found[entry.name] = target.partition("/")[0]
    return found


def add_route(routes: Path, name: str, env_id: str) -> None:
    """Lead a host name to an environment, also where it led to another one before."""
    check_hostname(name)
    if not is_id(env_id):
        raise HeadwayError("internal.error", "An environment's id has an impossible shape.")
    _lead(routes / name, _PREFIX + env_id)


def add_redirect(routes: Path, name: str, env_id: str, origin: str) -> None:
    """Answer a host name with a redirect to an origin, as `https://www.example.com:8443`."""
    check_hostname(name)
    matched = _ORIGIN.fullmatch(origin)
    if matched is None or not is_id(env_id):
        raise HeadwayError("internal.error", "A redirect leads to an impossible place.")
    place = f"{matched[1]}@{matched[2]}"
    folder = routes.parent / "redirects" / env_id / place
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / (REDIRECT + place), b"")
    _lead(routes / name, f"{_REDIRECTS}{env_id}/{place}")


def _lead(link: Path, target: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if os.readlink(link) == target:
            return
    point(link, target)


def remove_route(routes: Path, name: str, env_id: str | None = None) -> None:
    """Take a host name away; with `env_id` only if it still leads there."""
    link = routes / check_hostname(name)
    with contextlib.suppress(FileNotFoundError):
        target = os.readlink(link)
        if env_id is None or target == _PREFIX + env_id or target.startswith(f"{_REDIRECTS}{env_id}/"):
            os.unlink(link)
            sync_folder(routes)


def set_routes(routes: Path, env_id: str, names: Iterable[str], redirects: Mapping[str, str] | None = None) -> None:
    """Let exactly these names lead to the environment: additions first, so that a renamed site is never without one.

    `redirects`: the origin that some of the names lead on to.
    """
    wanted, led = set(names), redirects or {}
    for name in sorted(wanted):
        if name in led:
            add_redirect(routes, name, env_id, led[name])
        else:
            add_route(routes, name, env_id)
    for name in routes_of(routes, env_id):
        if name not in wanted:
            remove_route(routes, name, env_id)
    _tidy_redirects(routes, env_id)


def _tidy_redirects(routes: Path, env_id: str) -> None:
    """Remove the places that no name of the environment redirects to any more."""
    home = routes.parent / "redirects" / env_id
    if not home.is_dir():
        return
    used = {os.readlink(routes / name).rpartition("/")[2] for name in routes_of(routes, env_id)}
    for folder in home.iterdir():
        if folder.name not in used:
            shutil.rmtree(folder)
    with contextlib.suppress(OSError):
        home.rmdir()
