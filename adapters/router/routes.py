"""The folder of routes: `ROUTES/<host name> → ../env/<env_id>`. Adding and removing are single renames, idempotent.

A name that redirects leads to `../redirects/<env_id>/<scheme>@<authority>` instead, a folder with one empty file whose
name says where to: Caddy finds it as it finds the current release. One that asks for a password leads to
`../locked/<env_id>`, where the lock lies beside links to the environment's releases, and there is no `current`.
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
from headway.broker import leads_digest
from headway.errors import HeadwayError
from headway.ids import is_id

# The same expression stands in Caddy's configuration, in front of every path that is made of a Host header.
HOSTNAME: Final = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"

_HOSTNAME = re.compile(HOSTNAME)
_PREFIX = "../env/"
_REDIRECTS = "../redirects/"
_LOCKED = "../locked/"
_ORIGIN = re.compile(rf"(https?)://({HOSTNAME}(:[0-9]{{1,5}})?)")
# What Caddy looks for in a redirecting name's folder.
REDIRECT: Final = "to@"
# Not `lock`, which every environment has; and beside it, what `current` is elsewhere.
LOCK: Final = "visitors"
BEHIND: Final = "behind"


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
                    target = (
                        os.readlink(entry.path).removeprefix(_PREFIX).removeprefix(_REDIRECTS).removeprefix(_LOCKED)
                    )
                    found[entry.name] = target.partition("/")[0]
    return found


def leads_of(routes: Path) -> dict[str, str]:
    """By environment to which a name leads, the digest of its names, of where they redirect to and of its lock."""
    found = dict[str, dict[str, str]]()
    for name, env_id in list_routes(routes).items():
        with contextlib.suppress(OSError):
            found.setdefault(env_id, {})[name] = _way(os.readlink(routes / name), has_lock(routes, env_id))
    return {env_id: leads_digest(names, _lock_text(routes, env_id)) for env_id, names in found.items()}


def _way(target: str, locked: bool) -> str:
    """The origin that a name redirects to, nothing where it is served, and what no row says where it passes a lock."""
    if target.startswith(_REDIRECTS):
        return target.rpartition("/")[2].replace("@", "://", 1)
    return "" if target.startswith(_LOCKED) == locked else "?"


def _lock_text(routes: Path, env_id: str) -> str:
    with contextlib.suppress(OSError):
        return (_locked(routes, env_id) / LOCK).read_text()
    return ""


def add_route(routes: Path, name: str, env_id: str, *, locked: bool | None = None) -> None:
    """Lead a host name to an environment, also where it led to another one before.

    `locked` None: behind the environment's lock, where it has one.
    """
    check_hostname(name)
    if not is_id(env_id):
        raise HeadwayError("internal.error", "An environment's id has an impossible shape.")
    behind = has_lock(routes, env_id) if locked is None else locked
    _lead(routes / name, (_LOCKED if behind else _PREFIX) + env_id)


def redirects(routes: Path, name: str, env_id: str) -> bool:
    """Whether a name of the environment answers with a redirect."""
    try:
        return os.readlink(routes / check_hostname(name)).startswith(f"{_REDIRECTS}{env_id}/")
    except OSError:
        return False


def has_lock(routes: Path, env_id: str) -> bool:
    return (_locked(routes, env_id) / LOCK).exists()


def put_lock(routes: Path, env_id: str, lock: str) -> None:
    """Make the place behind which names are locked. What leads elsewhere still does."""
    folder = _locked(routes, env_id)
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in (("r", "r"), (BEHIND, "current")):
        _lead(folder / name, f"../../env/{env_id}/{target}")
    path = folder / LOCK
    if not path.exists() or path.read_text() != lock:
        write_file(path, lock.encode())


def _locked(routes: Path, env_id: str) -> Path:
    return routes.parent / "locked" / env_id


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
        own = (_PREFIX + env_id, _LOCKED + env_id) if env_id else ()
        if env_id is None or target in own or target.startswith(f"{_REDIRECTS}{env_id}/"):
            os.unlink(link)
            sync_folder(routes)


def set_routes(
    routes: Path, env_id: str, names: Iterable[str], redirects: Mapping[str, str] | None = None, lock: str = ""
) -> None:
    """Let exactly these names lead to the environment: additions first, so that a renamed site is never without one.

    `redirects`: the origin that some of the names lead on to. With `lock` all others ask for its password.
    """
    wanted, led = set(names), redirects or {}
    if lock:
        put_lock(routes, env_id, lock)
    for name in sorted(wanted):
        if name in led:
            add_redirect(routes, name, env_id, led[name])
        else:
            add_route(routes, name, env_id, locked=bool(lock))
    for name in routes_of(routes, env_id):
        if name not in wanted:
            remove_route(routes, name, env_id)
    _tidy_redirects(routes, env_id)
    if not lock:
        shutil.rmtree(_locked(routes, env_id), ignore_errors=True)


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
