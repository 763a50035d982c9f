"""Builders of other machines, and who works at what."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from store.models import utcnow


class Builder(SQLModel, table=True):
    """A building machine with a credential of its own; the one beside the API has the role's, and no row."""

    __table_args__ = (Index("builder_secret", "secret_sha256", unique=True),)
    id: str = Field(primary_key=True)
    secret_sha256: str
    created_at: datetime = Field(default_factory=utcnow)
    last_used_at: datetime | None = None


class BuilderLease(SQLModel, table=True):
    """A build, a command (by its job) or a look (by its site), and the one process that has it.

    `holder_sha256` stands for what that process alone knows. `heard_at`: when it last said something, a little coarse.
    """

    __tablename__ = "builder_lease"
    __table_args__ = (Index("builder_lease_heard", "heard_at"), Index("builder_lease_builder", "builder_id"))
    subject_id: str = Field(primary_key=True)
    builder_id: str
    holder_sha256: str
    heard_at: datetime = Field(default_factory=utcnow)
