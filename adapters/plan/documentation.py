"""What pyproject.toml asks for beyond the project itself to make its documentation: a group, or an extra."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from adapters.plan.part import table

NAMED: Final = ("docs", "doc", "documentation")


@dataclass(frozen=True)
class Group:
    """`requirements` are what it brings, as they are written: `sphinx<9`; of a group of Poetry's the names alone."""

    name: str
    kind: Literal["group", "extra", "poetry"]
    requirements: tuple[str, ...]


def find_group(project: Mapping[str, Any] | None) -> Group | None:
    """By the usual names; `[dependency-groups]` comes before `[project.optional-dependencies]`."""
    groups, extras = table(project, "dependency-groups"), table(project, "project", "optional-dependencies")
    for name in NAMED:
        if isinstance(groups.get(name), list):
            return Group(name, "group", tuple(_texts(groups, name, set())))
        if isinstance(extras.get(name), list):
            return Group(name, "extra", tuple(one for one in extras[name] if isinstance(one, str)))
        if asked := table(project, "tool", "poetry", "group", name, "dependencies"):
            return Group(name, "poetry", tuple(asked))
    return None


def _texts(groups: Mapping[str, Any], name: str, seen: set[str]) -> Iterator[str]:
    listed = groups.get(name)
    if name in seen or not isinstance(listed, list):
        return
    seen.add(name)
    for one in listed:
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict) and isinstance(one.get("include-group"), str):
            yield from _texts(groups, one["include-group"], seen)
