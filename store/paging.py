"""Lists by position, newest first: concurrent writes make neither duplicates nor gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import and_, func, or_
from sqlmodel import Session, col, select
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


def fetch_slice(
    session: Session, statement: SelectOfScalar[T], offset: int, limit: int, *, time: Any, id: Any
) -> Sequence[T]:
    """Rows by their number in the list, for callers who count pages."""
    ordered = statement.order_by(col(time).desc(), col(id).desc())
    return session.exec(ordered.offset(offset).limit(limit)).all()


def count_of(session: Session, statement: SelectOfScalar[T]) -> int:
    """How long the whole list is."""
    return session.exec(select(func.count()).select_from(statement.order_by(None).subquery())).one()
