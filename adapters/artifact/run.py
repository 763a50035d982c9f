"""How a dynamic artifact runs: part of the manifest, so that what was signed says what is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
        raise NotImplementedError
