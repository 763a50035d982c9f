"""What pyproject.toml asks for beyond the project itself to make its documentation: a group, or an extra."""

from __future__ import annotations

from collections import deque
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
            return Group(name, "group", tuple(_texts(groups, name)))
        if isinstance(extras.get(name), list):
            return Group(name, "extra", tuple(one for one in extras[name] if isinstance(one, str)))
        if asked := table(project, "tool", "poetry", "group", name, "dependencies"):
            return Group(name, "poetry", tuple(asked))
    return None


def _texts(groups: Mapping[str, Any], name: str) -> Iterator[str]:
    """In the order in which they are written; a group that is included, in its place, and once."""
    ahead, seen = deque[Any]([{"include-group": name}]), set[str]()
    while ahead:
        one = ahead.popleft()
        if isinstance(one, str):
            yield one
            continue
        group = one.get("include-group") if isinstance(one, dict) else None
        if not isinstance(group, str) or group in seen:
            continue
        seen.add(group)
        listed = groups.get(group)
        ahead.extendleft(reversed(listed) if isinstance(listed, list) else ())
