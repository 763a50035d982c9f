"""What `doctor` finds: one line each, with what to do where something is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "warning", "failure"]


@dataclass(frozen=True)
class Finding:
    """`fix` says what to do; empty when all is well."""

    name: str
    level: Level
    what: str
    fix: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def ok(name: str, what: str) -> Finding:
    return Finding(name, "ok", what)


def warning(name: str, what: str, fix: str) -> Finding:
    return Finding(name, "warning", what, fix)


def failure(name: str, what: str, fix: str) -> Finding:
    return Finding(name, "failure", what, fix)


def collect(examinations: Iterable[tuple[str, Callable[[], Iterator[Finding]]]]) -> Iterator[Finding]:
    """Run each; one that itself goes wrong is a finding, so that the others are still heard."""
    for name, examine in examinations:
        try:
            yield from examine()
        except Exception as error:
            first = (str(error).splitlines() or [""])[0][:200]
            yield failure(name, f"{type(error).__name__}: {first}", f"Read the logs of {name}.")
