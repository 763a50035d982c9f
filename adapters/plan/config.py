"""`headway.toml`: read strictly, so that a slip of the pen is an error that names its key and not a silent default.

[build]      command, install, output, root, env, secrets, timeout, watch, cache
[static]     not_found, spa, headers, redirects
[run]        how an app runs (`adapters.plan.run_table`), with [processes] and [[mounts]]
[[routes]]   branch routes, read by the platform and not here
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from adapters.artifact.paths import escaped, path_fault
from adapters.artifact.rules import StaticRules, parse_rules
from adapters.artifact.run_fields import KEPT, MAX_COMMAND, MAX_ENV, MAX_VALUE, VARIABLE
from adapters.plan.run_table import RunTable, parse_run_table
from headway.errors import HeadwayError
from headway.toml import parse_toml

FILE: Final = "headway.toml"
MAX_BYTES: Final = 256 << 10
MAX_WATCH: Final = 100
MAX_CACHE: Final = 20
MAX_SECRETS: Final = 50
# A little more than a site may have: too many are to be seen as too many.
MAX_ROUTES: Final = 100
MAX_ROUTE: Final = 300
MAX_TIMEOUT: Final = 24 * 3600

BUILD_KEYS: Final = frozenset(
    ("command", "install", "output", "root", "env", "secrets", "timeout", "watch", "skip", "cache")
)


@dataclass(frozen=True)
class Config:
    """What the repository says. None where it says nothing; `command` and `install` may be empty: nothing to run.

    `output` and `root` are relative paths without `.` or `..`; `""` is the folder itself. `timeout` is in seconds.
    `watch` are paths of the repository: a commit that changes nothing below them needs no build. `secrets` are names
    of the environment's configuration that the build is given. `cache` are folders below `root` that builds keep.
    `routes` are as they were given: whoever lets them count judges them.
    """

    command: str | None = None
    install: str | None = None
    output: str | None = None
    root: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    timeout: int | None = None
    watch: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    cache: tuple[str, ...] = ()
    static: StaticRules = field(default_factory=StaticRules)
    run: RunTable = field(default_factory=RunTable)
    routes: tuple[Mapping[str, str], ...] | None = None


def parse_config(raw: bytes) -> Config:
    """Raises build.config_invalid, naming the key."""
    if len(raw) > MAX_BYTES:
        raise _fail("", f"is larger than {MAX_BYTES} bytes")
    try:
        document = parse_toml(raw.decode())
    except UnicodeDecodeError:
        raise _fail("", "is not UTF-8") from None
    except ValueError as error:
        raise _fail("", f"is not TOML: {escaped(str(error))[:200]}") from None
    except RecursionError:
        raise _fail("", "is nested too deeply") from None
    _known("", document, {"build", "static", "run", "processes", "mounts", "routes"})
    build = _table(document, "build")
    _known("build", build, BUILD_KEYS)
    return Config(
        command=_command(build, "command"),
        install=_command(build, "install"),
        output=_path(build, "output") if "output" in build else None,
        root=_path(build, "root") if "root" in build else "",
        env=_env(build),
        secrets=_secrets(build),
        timeout=_timeout(build),
        watch=_watch(build),
        cache=_cache(build),
        static=parse_rules(document.get("static", {}), _fail),
        run=parse_run_table(document, _fail),
        routes=_routes(document.get("routes")),
    )


def _routes(given: object) -> tuple[Mapping[str, str], ...] | None:
    """Texts, so that they can be kept; what is no table of texts is kept as one that is no route."""
    if given is None:
        return None
    rows = given if isinstance(given, list) else [given]
    return tuple(
        {str(key)[:MAX_ROUTE]: str(value)[:MAX_ROUTE] for key, value in row.items()} if isinstance(row, dict) else {}
        for row in rows[: MAX_ROUTES + 1]
    )


def _command(build: Mapping[str, Any], key: str) -> str | None:
    command = build.get(key)
    if command is None:
        return None
    if not isinstance(command, str) or "\0" in command or len(command.encode()) > MAX_COMMAND:
        raise _fail(f"build.{key}", "must be a text for `sh -c`")
    return command.strip()


def _path(build: Mapping[str, Any], key: str) -> str:
    value = build[key]
    if not isinstance(value, str) or not value or value.startswith("/"):
        raise _fail(f"build.{key}", "must be a path relative to the repository")
    parts = [part for part in value.split("/") if part not in ("", ".")]
    path = "/".join(parts)
    if ".." in parts or (path and path_fault(path)):
        raise _fail(f"build.{key}", "must be a plain path that stays inside the repository")
    return path


def _watch(build: Mapping[str, Any]) -> tuple[str, ...]:
    skip, watch = build.get("skip", False), build.get("watch", [])
    if not isinstance(skip, bool):
        raise _fail("build.skip", "must be true or false")
    if skip and not watch:
        if not build.get("root"):
            raise _fail("build.skip", "needs a root or a watch: without one, every commit changes what is built")
        watch = [build["root"]]
    if not isinstance(watch, list) or len(watch) > MAX_WATCH:
        raise _fail("build.watch", f"must be a list of at most {MAX_WATCH} paths")
    return tuple(_path({f"watch[{number}]": one}, f"watch[{number}]") for number, one in enumerate(watch))


def _cache(build: Mapping[str, Any]) -> tuple[str, ...]:
    """Folders that are taken out of the tree after the build: none of them may hold another, or the output."""
    given = build.get("cache", [])
    if not isinstance(given, list) or len(given) > MAX_CACHE:
        raise _fail("build.cache", f"must be a list of at most {MAX_CACHE} folders")
    paths = [_path({f"cache[{number}]": one}, f"cache[{number}]") for number, one in enumerate(given)]
    kept = [_path(build, "output")] if build.get("output") else []
    for number, path in enumerate(paths):
        others = [*kept, *paths[:number], *paths[number + 1 :]]
        if not path or any(f"{other}/".startswith(f"{path}/") for other in others):
            raise _fail(f"build.cache[{number}]", "must be a folder that holds neither the output nor another of them")
    return tuple(sorted(paths))


def _env(build: Mapping[str, Any]) -> dict[str, str]:
    env = build.get("env", {})
    if not isinstance(env, dict) or len(env) > MAX_ENV:
        raise _fail("build.env", f"must be a table of at most {MAX_ENV} texts")
    for name, value in env.items():
        if not VARIABLE.fullmatch(name) or name in KEPT:
            raise _fail(f"build.env.{escaped(name)}", "is not a name that a build may set")
        if not isinstance(value, str) or "\0" in value or len(value.encode()) > MAX_VALUE:
            raise _fail(f"build.env.{name}", "must be a text")
    return dict(env)


def _secrets(build: Mapping[str, Any]) -> tuple[str, ...]:
    names = build.get("secrets", [])
    if not isinstance(names, list) or len(names) > MAX_SECRETS:
        raise _fail("build.secrets", f"must be a list of at most {MAX_SECRETS} names")
    for name in names:
        if not isinstance(name, str) or not VARIABLE.fullmatch(name) or name in KEPT:
            raise _fail("build.secrets", "must be names of variables or secrets of the environment")
        if name in build.get("env", {}):
            raise _fail(f"build.secrets: {name}", "is set by build.env too")
    return tuple(sorted(set(names)))


def _timeout(build: Mapping[str, Any]) -> int | None:
    timeout = build.get("timeout")
    if timeout is not None and (type(timeout) is not int or not 1 <= timeout <= MAX_TIMEOUT):
        raise _fail("build.timeout", f"must be whole seconds, 1 to {MAX_TIMEOUT}")
    return timeout


def _table(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    table = document.get(key, {})
    if not isinstance(table, dict):
        raise _fail(key, "must be a table")
    return table


def _known(prefix: str, table: Mapping[str, Any], known: Collection[str]) -> None:
    for key in table:
        if key not in known:
            name = f"{prefix}.{key}" if prefix else key
            raise _fail(escaped(name), "is not a known key; known are " + ", ".join(sorted(known)))


def _fail(key: str, why: str) -> HeadwayError:
    subject = f"{FILE}: {key} {why}." if key else f"{FILE} {why}."
    return HeadwayError("build.config_invalid", subject, param=key or None, file=FILE)
