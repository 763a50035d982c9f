"""What is being forgotten: objects on their way out, and packs that are being replaced by smaller ones."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field, SQLModel

from store.models import utcnow


class Doomed(SQLModel, table=True):
    """An object whose rows are gone: nobody may count on it, or write it anew, until this row is gone too.

    `site_id` is the team's id for what belongs to sandboxes.
    """

    site_id: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    doomed_at: datetime = Field(default_factory=utcnow)


class Repack(SQLModel, table=True):
    """What still counts of `old_sha256` lies in `new_sha256` as well: `contents` maps a sha256 to offset and size."""

    site_id: str = Field(primary_key=True)
    old_sha256: str = Field(primary_key=True)
    new_sha256: str
    contents: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    copied_at: datetime = Field(default_factory=utcnow)
