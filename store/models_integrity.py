"""What a scrub found in the object store that is not what it should be."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, text
from sqlmodel import Field, SQLModel

from store.models import utcnow


class Finding(SQLModel, table=True):
    """A damaged object, once while it is open. `object`: pack | manifest | layout | bundle; `name`: the pack's sha256,
    or the artifact's digest. `damage`: missing | changed; `etag` is that of the damaged bytes: they alone are replaced.

    `mended_by` is a host's id, or `rows`; `tried` says why others could not. `log_index` is None until the ledger holds
    how it ended (`settled_at`): mended, or beyond what is left.
    """

    __table_args__ = (
        Index("finding_made", "found_at", "id"),
        Index(
            "finding_open",
            "site_id",
            "object",
            "name",
            unique=True,
            sqlite_where=text("mended_at IS NULL"),
            postgresql_where=text("mended_at IS NULL"),
        ),
        Index(
            "finding_unlogged",
            "settled_at",
            "id",
            sqlite_where=text("log_index IS NULL"),
            postgresql_where=text("log_index IS NULL"),
        ),
    )
    id: str = Field(primary_key=True)
    site_id: str = Field(foreign_key="site.id")
    object: str
    name: str
    damage: str
    etag: str | None = None
    size: int = Field(sa_type=BigInteger)
    tried: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))
    mended_by: str | None = None
    found_at: datetime = Field(default_factory=utcnow)
    settled_at: datetime | None = None
    mended_at: datetime | None = None
    log_index: int | None = Field(default=None, sa_type=BigInteger)
