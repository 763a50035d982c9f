"""Lists by position, newest first: concurrent writes make neither duplicates nor gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import and_, or_
from sqlmodel import Session, col
from sqlmodel.sql.expression import SelectOfScalar

T = TypeVar("T")


@dataclass(frozen=True)
class Page:
    """At most `limit` rows that come after the position `(time, id)`."""

    limit: int = 20
    after: tuple[datetime, str] | None = None


def fetch_page(
    session: Session, statement: SelectOfScalar[T], page: Page, *, time: Any, id: Any
) -> tuple[Sequence[T], bool]:
    """The rows, and whether there are more. `time` and `id` are the columns that order the list."""
    when, which = col(time), col(id)
    if page.after is not None:
        moment, last = page.after
        statement = statement.where(or_(when < moment, and_(when == moment, which < last)))
    rows = session.exec(statement.order_by(when.desc(), which.desc()).limit(page.limit + 1)).all()
    return rows[: page.limit], len(rows) > page.limit
