"""A plan: how a tree becomes an artifact, decided before anything runs, as pure data that is kept with the build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from adapters.artifact.rules import StaticRules
from adapters.artifact.run import RunSettings

# In this order: where builds of the known tools write (contract section 12).
OUTPUTS: Final = ("dist", "build", "public", "out", "_site")

StepName = Literal["install", "build", "tidy"]


@dataclass(frozen=True)
class Plan:
    """`install`, `command` (the build itself) and `tidy` run by `sh -c` in `root`, in this order; None: nothing runs.

    The first of `outputs` (below `root`) that is there afterwards is published; `""` is the root itself, without what
    `left_out` names. `source` says what decided: a file's name, or `tree`; `framework` what was recognised.
    `toolchain` is version by program, as far as it is known. `lock` is the lock file that keys the cache, `timeout` is
    in seconds (None: the operator's limit). `run` is there for `dynamic` plans only. A commit that changes nothing
    below `watch` (paths of the repository; none: all of it) needs no build. `secrets` are names, never values. `cache`
    are folders below `root` that are kept from one build to the next. `routes` are
    the branch routes that the repository names, unjudged.
    """

    profile: Literal["static", "dynamic"]
    source: str
    command: str | None
    outputs: tuple[str, ...]
    root: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    timeout: int | None = None
    lock: str | None = None
    static: StaticRules = field(default_factory=StaticRules)
    run: RunSettings | None = None
    install: str | None = None
    tidy: str | None = None
    framework: str | None = None
    toolchain: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    watch: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    cache: tuple[str, ...] = ()
    routes: tuple[Mapping[str, str], ...] | None = None

    @property
    def steps(self) -> list[tuple[StepName, str]]:
        """What runs, in order."""
        named: tuple[tuple[StepName, str | None], ...] = (
            ("install", self.install),
            ("build", self.command),
            ("tidy", self.tidy),
        )
        return [(name, command) for name, command in named if command]

    def as_dict(self) -> dict[str, Any]:
        """The shape that the build's row and the provenance keep."""
        kept = (("secrets", self.secrets), ("cache", self.cache))
        named: dict[str, Any] = {name: list(given) for name, given in kept if given}
        if self.routes is not None:
            named["routes"] = [dict(row) for row in self.routes]
        return {
            "version": 2,
            "profile": self.profile,
            "framework": self.framework,
            "source": self.source,
            "root": self.root or ".",
            "toolchain": dict(sorted(self.toolchain.items())),
            "install": self.install,
            "build": self.command,
            "tidy": self.tidy,
            "outputs": [one or "." for one in self.outputs],
            "left_out": list(self.left_out),
            "start": self.run.command if self.run else None,
            "env": dict(sorted(self.env.items())),
            "timeout": self.timeout,
            "watch": list(self.watch),
            "lock": self.lock,
            "static": self.static.as_dict() if self.static else None,
            "run": self.run.as_dict() if self.run else None,
            **named,
        }

    def summary(self) -> list[str]:
        """Lines for the log."""
        where = f" in {self.root}" if self.root else ""
        what = f"{self.profile} ({self.framework})" if self.framework else self.profile
        tools = "".join(f", {name} {version}" for name, version in sorted(self.toolchain.items()))
        lines = [f"plan from {self.source}: {what}{where}{tools}"]
        lines += [f"plan: {name}: {command}" for name, command in self.steps] or ["plan: nothing to run"]
        lines += [f"plan: secrets: {', '.join(self.secrets)}"] if self.secrets else []
        lines += [f"plan: cache: {', '.join(self.cache)}"] if self.cache else []
        lines += [f"plan: depends on: {', '.join(self.watch)}"] if self.watch else []
        lines.append("plan: publish " + ", ".join(one or "the tree itself" for one in self.outputs))
        if self.run:
            lines.append(f"plan: start: {self.run.command}")
            lines += [f"plan: start {name}: {command}" for name, command in sorted(self.run.processes.items())]
        return lines
