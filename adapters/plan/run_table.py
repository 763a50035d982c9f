"""`[run]`, `[processes]` and `[[mounts]]` of headway.toml: what a repository says of how its app runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from adapters.artifact import run_fields as fields
from adapters.artifact.paths import escaped
from adapters.artifact.run import HealthCheck, RunSettings
from adapters.artifact.run_fields import Fail

KEYS: Final = frozenset(
    (
        *("command", "port", "instances", "release_command", "release_timeout", "stop_grace"),
        *("egress", "env", "memory", "cpu"),
        *("health_check_path", "health_check_status", "health_check_passes"),
        *("health_check_interval", "health_check_timeout"),
    )
)
_SIZE = re.compile(r"(\d{1,9}) ?([KMG])i?B?", re.IGNORECASE)
_UNITS: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_STATUS = re.compile(r"([1-5]\d\d)(?:-([1-5]\d\d))?")


@dataclass(frozen=True)
class RunTable:
    """`command` is None where the file names none; `given` are the fields of `RunSettings` that it sets."""

    command: str | None = None
    processes: Mapping[str, str] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.command or self.processes or self.given)

    def over(self, found: RunSettings, given: Mapping[str, Any]) -> RunSettings:
        """The settings, where `found` is what was detected: what is `given` wins, tables of variables are joined."""
        return replace(found, **{**given, "env": {**found.env, **given.get("env", {})}})


def parse_run_table(document: Mapping[str, Any], fail: Fail) -> RunTable:
    """Raises what `fail` makes, naming the key."""
    run = _table(document.get("run", {}), "run", fail)
    for key in run:
        if key not in KEYS:
            raise fail(f"run.{escaped(key)}", "is not a known key; known are " + ", ".join(sorted(KEYS)))
    given: dict[str, Any] = {}
    for key, (name, check) in _PLAIN.items():
        if key in run:
            given[name] = check(run[key], f"run.{key}", fail)
    health = _health(run, fail)
    if health != {}:
        given["health"] = replace(HealthCheck(), **health)
    if "mounts" in document:
        given["volumes"] = _volumes(document["mounts"], fail)
    command = fields.check_command(_stripped(run["command"]), "run.command", fail) if "command" in run else None
    processes = _processes(_table(document.get("processes", {}), "processes", fail), fail)
    return RunTable(processes.pop(fields.WEB, command), processes, given)


def _port(raw: object, key: str, fail: Fail) -> int:
    return fields.check_int(raw, key, 1, fields.PORT, fail)


def _instances(raw: object, key: str, fail: Fail) -> int:
    return fields.check_int(raw, key, 1, fields.INSTANCES, fail)


def _seconds(raw: object, key: str, fail: Fail) -> int:
    return fields.check_int(raw, key, 1, fields.SECONDS, fail)


def _grace(raw: object, key: str, fail: Fail) -> int:
    return fields.check_int(raw, key, 0, fields.SECONDS, fail)


def _memory(raw: object, key: str, fail: Fail) -> int:
    match = _SIZE.fullmatch(raw) if isinstance(raw, str) else None
    low, high = fields.MEMORY
    size = int(match[1]) * _UNITS[match[2].upper()] if match else 0
    if not low <= size <= high:
        raise fail(key, 'must be a size such as "512 MB" or "2 GB" (powers of 1024), 16 MB at least')
    return size


def _cpu(raw: object, key: str, fail: Fail) -> int:
    low, high = fields.CPU_MILLIS
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not low <= raw * 1000 <= high:
        raise fail(key, "must be a number of cores, 0.01 at least")
    return round(raw * 1000)


def _release(raw: object, key: str, fail: Fail) -> str:
    return fields.check_command(_stripped(raw), key, fail)


_PLAIN: Final = {
    "port": ("port", _port),
    "instances": ("instances", _instances),
    "release_command": ("release_command", _release),
    "release_timeout": ("release_timeout", _seconds),
    "stop_grace": ("stop_grace", _grace),
    "egress": ("egress", fields.check_egress),
    "env": ("env", fields.check_env),
    "memory": ("memory", _memory),
    "cpu": ("cpu_millis", _cpu),
}


def _health(run: Mapping[str, Any], fail: Fail) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "health_check_path" in run:
        found["path"] = fields.check_health_path(run["health_check_path"], "run.health_check_path", fail)
    if "health_check_status" in run:
        found["low"], found["high"] = _status(run["health_check_status"], "run.health_check_status", fail)
    if "health_check_passes" in run:
        found["passes"] = fields.check_passes(run["health_check_passes"], "run.health_check_passes", fail)
    if "health_check_interval" in run:
        found["interval_ms"] = _interval(run["health_check_interval"], "run.health_check_interval", fail)
    if "health_check_timeout" in run:
        found["timeout"] = _seconds(run["health_check_timeout"], "run.health_check_timeout", fail)
    return found


def _status(raw: object, key: str, fail: Fail) -> tuple[int, int]:
    match = _STATUS.fullmatch(str(raw)) if type(raw) in (int, str) else None
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if low > high:
        raise fail(key, 'must be a status such as 200, or a range such as "200-399"')
    return low, high


def _interval(raw: object, key: str, fail: Fail) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not 0.05 <= raw <= 60:
        raise fail(key, "must be seconds, 0.05 to 60")
    return round(raw * 1000)


def _processes(raw: Mapping[str, Any], fail: Fail) -> dict[str, str]:
    named = {name: _stripped(command) for name, command in raw.items()}
    web = named.pop(fields.WEB, None)
    found = fields.check_processes(named, "processes", fail)
    if web is not None:
        found[fields.WEB] = fields.check_command(web, f"processes.{fields.WEB}", fail)
    return found


def _volumes(raw: object, fail: Fail) -> tuple[str, ...]:
    if not isinstance(raw, list):
        raise fail("mounts", "must be a list of tables: [[mounts]]")
    paths = []
    for number, one in enumerate(raw):
        key = f"mounts[{number}]"
        table = _table(one, key, fail)
        if set(table) != {"path"}:
            raise fail(key, "must have path and nothing else")
        paths.append(fields.check_volumes([table["path"]], f"{key}.path", fail)[0])
    return fields.check_volumes(sorted(paths), "mounts", fail)


def _stripped(raw: object) -> object:
    return raw.strip() if isinstance(raw, str) else raw


def _table(raw: object, key: str, fail: Fail) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise fail(key, "must be a table")
    return raw
