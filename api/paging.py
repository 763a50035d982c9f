"""Cursors: an opaque position that belongs to one list (contract section 2)."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from headway.errors import HeadwayError
from store.paging import Page

T = TypeVar("T")
# The moment of all rows of a list that is ordered by number alone.
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def encode_cursor(of: str, moment: datetime, id: str) -> str:
    """`of` names the list (its path): a cursor of another list is refused."""
    raw = json.dumps({"t": moment.isoformat(), "id": id, "of": _tag(of)}, separators=(",", ":"))
    return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")


def decode_cursor(of: str, cursor: str) -> tuple[datetime, str]:
    """Raises pagination.invalid_cursor."""
    try:
        raw = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        moment, id, tag = datetime.fromisoformat(raw["t"]), raw["id"], raw["of"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _invalid("This is not a cursor of ours.") from None
    if tag != _tag(of):
        raise _invalid("This cursor belongs to another list.")
    if not isinstance(id, str) or "\0" in id or len(id) > 100 or not id.isascii():
        raise _invalid("This is not a cursor of ours.")
    try:
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC), id
    except OverflowError:
        raise _invalid("This is not a cursor of ours.") from None


def page_from(of: str, limit: int, cursor: str | None) -> Page:
    return Page(limit, decode_cursor(of, cursor) if cursor is not None else None)


def number_after(page: Page) -> int:
    """The position in a list whose rows are numbered. Raises pagination.invalid_cursor."""
    if page.after is None:
        return 0
    if not page.after[1].isdigit() or len(page.after[1]) > 9:
        raise _invalid("This is not a cursor of ours.")
    return int(page.after[1])


def pagination(of: str, rows: Sequence[T], more: bool, position: Callable[[T], tuple[datetime, str]]) -> dict[str, Any]:
    """The block beside `data`: `next_cursor` is null where there is no more."""
    return {"next_cursor": encode_cursor(of, *position(rows[-1])) if more and rows else None, "has_more": more}


def _tag(of: str) -> str:
    return hashlib.sha256(of.encode()).hexdigest()[:12]


def _invalid(why: str) -> HeadwayError:
    return HeadwayError("pagination.invalid_cursor", why, param="cursor")
