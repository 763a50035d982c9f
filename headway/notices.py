"""What people are told of an event: a title and some lines of plain text.

Branches, refs and messages are whoever's who may push: nothing of theirs may call a whole channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from headway.webhooks import EVENTS, Told

Json = dict[str, Any]
_LINE: Final = 300
# In this order, where the event has them.
_SHOWN: Final = (
    ("environment", "Environment"),
    ("kind", "Kind"),
    ("type", "Type"),
    ("hostname", "Domain"),
    ("ref", "Ref"),
    ("branch", "Branch"),
    ("commit_sha", "Commit"),
    ("url", "Address"),
    ("message", "Message"),
)


@dataclass(frozen=True)
class Words:
    """`level`: info | success | failure."""

    title: str
    body: str
    level: str


def words_of(told: Told, site: str = "") -> Words:
    """The same event gives the same words."""
    noun, facts = next(iter(told.data.items()))
    lines = [f"{name}: {_tame(facts[key])}" for key, name in _SHOWN if isinstance(facts.get(key), str)]
    error = facts.get("error")
    if isinstance(error, dict):
        lines.append(f"Error: {_tame(error.get('code', ''))}: {_tame(error.get('message', ''))}")
    job = facts.get("id") if noun == "job" else facts.get("job_id")
    lines += [f"Job: {job}"] if isinstance(job, str) else []
    title = f"{_tame(site)}: {told.type}" if site else told.type
    return Words(title, "\n".join([EVENTS.get(told.type, told.type), *lines]), _level(told.type))


def _level(type: str) -> str:
    last = type.rpartition(".")[2]
    if last == "failed":
        return "failure"
    return "success" if last in ("succeeded", "deployed", "activated", "attached", "created") else "info"


def _tame(text: Any) -> str:
    """One line, no mention, no markup of a chat's own."""
    kept = "".join(letter if letter.isprintable() else " " for letter in str(text))
    return kept.replace("@", "@\u200b").replace("<", "‹").replace(">", "›")[:_LINE]
