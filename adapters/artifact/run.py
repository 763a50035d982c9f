"""How a dynamic artifact runs: part of the manifest, so that what was signed says what is started."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from adapters.artifact.run_fields import (
    INSTANCES,
    PORT,
    SECONDS,
    Fail,
    check_command,
    check_cpu,
    check_egress,
    check_env,
    check_folder,
    check_health_path,
    check_int,
    check_interval,
    check_memory,
    check_passes,
    check_processes,
    check_status,
    check_volumes,
)


@dataclass(frozen=True)
class HealthCheck:
    """`path` is asked until `passes` answers in a row have a status between `low` and `high` or the time is up.

    `interval_ms` is the pause between two looks; `timeout` is in seconds.
    """

    path: str = "/"
    low: int = 200
    high: int = 399
    passes: int = 1
    interval_ms: int = 500
    timeout: int = 60


@dataclass(frozen=True)
class RunSettings:
    """`[run]` and `[processes]` of headway.toml, or what was detected.

    `command` is the web process, by `sh -c` in `folder` of the tree; `port` None: the app listens on `$PORT`, which the
    host chooses. `processes` are released with it and serve nobody. `env` holds plain values. `egress` as in
    `adapters.runtime.driver.InstanceSpec`. `volumes` are folders of the tree that outlive releases.
    """

    command: str
    port: int | None = None
    folder: str = ""
    health: HealthCheck = field(default_factory=HealthCheck)
    instances: int = 1
    release_command: str | None = None
    release_timeout: int = 600
    stop_grace: int = 10
    egress: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    processes: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[str, ...] = ()
    memory: int = 512 << 20
    cpu_millis: int = 1000

    def as_dict(self) -> dict[str, Any]:
        """The manifest's `run`: integers, texts and lists only (RFC 8785 has no trouble with those)."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        return {
            **plain,
            "health": {one.name: getattr(self.health, one.name) for one in fields(HealthCheck)},
            "egress": list(self.egress),
            "volumes": list(self.volumes),
            "env": dict(sorted(self.env.items())),
            "processes": dict(sorted(self.processes.items())),
        }


Check = Callable[[object, str, Fail], Any]


def _or_none(check: Check) -> Check:
    return lambda raw, key, fail: None if raw is None else check(raw, key, fail)


def _between(low: int, high: int) -> Check:
    return lambda raw, key, fail: check_int(raw, key, low, high, fail)


_HEALTH: Mapping[str, Check] = {
    "path": check_health_path,
    "low": check_status,
    "high": check_status,
    "passes": check_passes,
    "interval_ms": check_interval,
    "timeout": _between(1, SECONDS),
}
_RUN: Mapping[str, Check] = {
    "command": check_command,
    "port": _or_none(_between(1, PORT)),
    "folder": check_folder,
    "health": lambda raw, key, fail: _health(raw, key, fail),
    "instances": _between(1, INSTANCES),
    "release_command": _or_none(check_command),
    "release_timeout": _between(1, SECONDS),
    "stop_grace": _between(0, SECONDS),
    "egress": check_egress,
    "env": check_env,
    "processes": check_processes,
    "volumes": check_volumes,
    "memory": check_memory,
    "cpu_millis": check_cpu,
}


def parse_run(raw: object, fail: Fail) -> RunSettings:
    """Read an untrusted `run` strictly: every key there, none else, all in range. Raises what `fail` makes."""
    return RunSettings(**_fields(raw, "run", _RUN, fail))


def _health(raw: object, key: str, fail: Fail) -> HealthCheck:
    health = HealthCheck(**_fields(raw, key, _HEALTH, fail))
    if health.low > health.high:
        raise fail(f"{key}.high", "is below low")
    return health


def _fields(raw: object, key: str, checks: Mapping[str, Check], fail: Fail) -> dict[str, Any]:
    if not isinstance(raw, dict) or set(raw) != set(checks):
        raise fail(key, "must be a table with the keys " + ", ".join(sorted(checks)))
    return {name: check(raw[name], f"{key}.{name}", fail) for name, check in checks.items()}
