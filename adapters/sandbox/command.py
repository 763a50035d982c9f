"""What is run in a sandbox, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from adapters.egress.policy import EgressPolicy

Limit = Literal["timeout", "out_of_memory", "disk_full", "too_many_processes", "log_too_large"]


@dataclass(frozen=True)
class Limits:
    """`wall` in seconds; `memory`, `disk` and `log` in bytes; `pids` in tasks (threads count); `cpu` in cores.

    `disk` is what one run may hold in everything that it can write: workspace, home, /tmp and writable mounts
    (those without what they held before). `nofile` is per process.
    """

    wall: float
    memory: int
    pids: int
    disk: int
    log: int
    cpu: float = 2.0
    nofile: int = 4096


@dataclass(frozen=True)
class Mount:
    """`source` on the host appears as `target` inside. A writable source belongs to the sandbox's uid for the run."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True)
class Command:
    """`workspace` is bound read-write at /workspace; the command starts in /workspace/<cwd>.

    Without `egress` there is no network but a loopback device of its own.
    """

    argv: list[str]
    workspace: Path
    limits: Limits
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    egress: EgressPolicy | None = None


@dataclass(frozen=True)
class Outcome:
    """`limit` is named whenever one was hit, whatever the exit code says. Killed runs have exit code 137.

    `peak_memory` in bytes, None where nothing measures it. `denied`: `host:port` of what egress refused.
    """

    exit_code: int
    seconds: float
    limit: Limit | None = None
    canceled: bool = False
    peak_memory: int | None = None
    denied: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.exit_code == 0 and self.limit is None and not self.canceled
