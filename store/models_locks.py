"""Passwords of environments that are not for everybody."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field, SQLModel

from store.models import json_column, utcnow

Json = dict[str, Any]


class EnvironmentLock(SQLModel, table=True):
    """What a visitor's password is compared with. `owner_id` is an environment, or a site: then new previews get it.

    `document` is what hosts are handed (adapters/router/locks.py): salt and hash, never the password.
    """

    __tablename__ = "environment_lock"
    owner_id: str = Field(primary_key=True)
    document: Json = Field(sa_column=Column(JSON, nullable=False))
    actor: Json | None = json_column()
    created_at: datetime = Field(default_factory=utcnow)
