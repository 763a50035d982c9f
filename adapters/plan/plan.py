"""A plan: how a tree becomes an artifact, decided before anything runs, as pure data that is kept with the build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from adapters.artifact.rules import StaticRules

# In this order: where builds of the known tools write (contract section 12).
OUTPUTS: Final = ("dist", "build", "public", "out", "_site")


@dataclass(frozen=True)
class Plan:
    """`command` runs by `sh -c` in `root`; None: nothing runs. The first of `outputs` (below `root`) that is there
    after the build is published; `""` is the root itself. `source` says what decided: a file's name, or `tree`.

    `lock` is the lock file that keys the cache, `timeout` is in seconds (None: the operator's limit).
    """

    profile: Literal["static"]
    source: str
    command: str | None
    outputs: tuple[str, ...]
    root: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    timeout: int | None = None
    lock: str | None = None
    static: StaticRules = field(default_factory=StaticRules)
    run: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The shape that the build's row and the provenance keep."""
        return {
            "version": 1,
            "profile": self.profile,
            "source": self.source,
            "root": self.root or ".",
            "command": self.command,
            "outputs": [one or "." for one in self.outputs],
            "env": dict(sorted(self.env.items())),
            "timeout": self.timeout,
            "lock": self.lock,
            "static": self.static.as_dict() if self.static else None,
        }

    def summary(self) -> str:
        """One line for the log."""
        where = f" in {self.root}" if self.root else ""
        outputs = ", ".join(one or "the tree itself" for one in self.outputs)
        how = f"run `{self.command}`{where}" if self.command else f"nothing to run{where}"
        return f"plan from {self.source}: {how}; publish {outputs}"
