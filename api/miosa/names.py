"""Ids and words: the same row under this dialect's name.

| here | in the engine |
|---|---|
| deployment `dep_X` | site `site_X` |
| version `ver_X`, also as a build | build `build_X` |
| release `rel_X` | artifact `art_X` |
| organisation (`tenant_id`) | team |
"""

from __future__ import annotations

import re
from typing import Final

_SHOWN: Final = {"site": "dep", "build": "ver", "art": "rel"}
_CORE: Final = {"dep": "site", "ver": "build", "rel": "art"}
# Upper case: `build_started` is an event.
_ID: Final = re.compile(r"\b(site|build|art)_([0-9A-Z]{4,32})\b")
_ROLLOUT: Final = re.compile(r"\bDeployment dep_[0-9A-Z]{4,32}\b")
# What a caller or an app has said stays as it was: in quotes, as last lines, or joined to something (`my-site.test`).
_SAID: Final = re.compile(r"((?<!\w)'[^'\n]*'(?!\w)|`[^`\n]*`|\bIts last lines: .*)", re.DOTALL)
_ALONE: Final = r"(?<![-\w./@])(?:{})(?![-\w/@]|\.\w)"
_WORDS: Final = tuple(
    (re.compile(_ALONE.format(pattern)), word)
    for pattern, word in (
        ("site's", "deployment's"),
        ("sites?", "deployment"),
        ("a team", "an organisation"),
        ("team", "organisation"),
        ("The rollout", "The promotion"),
        ("rollout", "promotion"),
        ("a job", "an operation"),
        ("job", "operation"),
        ("jobs", "operations"),
    )
)


def shown(id: str) -> str:
    """`site_X` → `dep_X`. What has no other name here stays."""
    prefix, _, rest = id.partition("_")
    return f"{_SHOWN.get(prefix, prefix)}_{rest}"


def shown_or_none(id: str | None) -> str | None:
    return shown(id) if id else None


def site_id(deployment_id: str) -> str:
    return _core(deployment_id, "dep")


def build_id(version_id: str) -> str:
    return _core(version_id, "ver")


def artifact_id(release_id: str) -> str:
    return _core(release_id, "rel")


def _core(id: str, prefix: str) -> str:
    """An id of another kind names nothing: it stays as it is, and is not found."""
    given, _, rest = id.partition("_")
    return f"{_CORE[prefix]}_{rest}" if given == prefix else f"none_{rest}"


def worded(message: str) -> str:
    """A message of the engine in this dialect's words."""
    message = _ROLLOUT.sub("Another publish", message)
    message = _ID.sub(lambda found: f"{_SHOWN[found[1]]}_{found[2]}", message)
    return "".join(part if index % 2 else _translated(part) for index, part in enumerate(_SAID.split(message)))


def _translated(text: str) -> str:
    for pattern, word in _WORDS:
        text = pattern.sub(word, text)
    return text
