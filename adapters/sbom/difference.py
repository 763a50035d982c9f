"""What changed between two bills."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.sbom.document import components_of


@dataclass(frozen=True)
class Change:
    """`before` and `after` are versions, None where the package is not there; `package` is its URL without version."""

    package: str
    before: str | None
    after: str | None


def difference(before: bytes, after: bytes) -> list[Change]:
    """By package. Raises sign.failed where one of them is no bill."""
    old, new = components_of(before), components_of(after)
    names = sorted({*old, *new})
    return [Change(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]
