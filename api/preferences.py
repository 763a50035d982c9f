"""What the headers of a request ask for: events or a document, a wait, only what is new."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

EVENTS: Final = "text/event-stream"
_WAIT: Final = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?", re.IGNORECASE)
_LIKED: Final = re.compile(r"\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*", re.IGNORECASE)


def wants_events(accept: str | None, otherwise: str) -> bool:
    """Whether events are named, and liked no less than the document, which is of the type `otherwise`.

    A wildcard names none (RFC 9110, section 12.5.1).
    """
    liked = dict(_ranges(accept or ""))
    events = liked.get(EVENTS, 0.0)
    wider = (otherwise, otherwise.partition("/")[0] + "/*", "*/*")
    return events > 0 and events >= next((liked[one] for one in wider if one in liked), 0.0)


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    for given in accept.split(","):
        media, *parameters = given.split(";")
        said = [found for found in map(_LIKED.fullmatch, parameters) if found]
        yield media.strip().lower(), float(said[0][1]) if said else 1.0


def preferred_wait(prefer: str | None) -> int:
    """Seconds of `Prefer: wait=30` (RFC 7240); 0 where it does not say."""
    found = _WAIT.search(prefer or "")
    return int(found[1]) if found else 0


def matches(if_none_match: str | None, tag: str) -> bool:
    """Weak comparison (RFC 9110, section 13.1.2)."""
    if if_none_match is None:
        return False
    given = [one.strip().removeprefix("W/") for one in if_none_match.split(",")]
    return tag in given or given == ["*"]


def number_of(last_event_id: str | None) -> int | None:
    """The number that a reader has seen last; None where it names none of ours."""
    text = (last_event_id or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None
