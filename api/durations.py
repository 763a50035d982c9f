"""Durations as callers write them: `90d`, `24h`, `1y`."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from headway.errors import HeadwayError

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
YEAR: Final = timedelta(days=365)


def duration(text: str, *, param: str, longest: timedelta, shortest: timedelta = timedelta(0)) -> timedelta:
    """Raises request.invalid_parameter outside of the range."""
    try:
        found = timedelta(seconds=int(text[:-1]) * _SECONDS[text[-1]])
    except (ValueError, KeyError, OverflowError):
        raise HeadwayError("request.invalid_parameter", f"{param} looks like 90d.", param=param) from None
    if not shortest <= found <= longest:
        message = f"{param} is at least {_text(shortest)} and at most {_text(longest)}."
        raise HeadwayError("request.invalid_parameter", message, param=param)
    return found


def _text(span: timedelta) -> str:
    return f"{span.days} days" if span.days else f"{int(span.total_seconds())} s"
