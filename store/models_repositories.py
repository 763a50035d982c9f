"""What private repositories are read with."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlmodel import Field, SQLModel

from store.models import json_column, utcnow


class RepositoryCredential(SQLModel, table=True):
    """`kind`: deploy_key (ssh, made here) | token (https, given). It is for one `host` alone, port included.

    The secret half is hidden by the vault of configuration. `public_key` is what the forge is given.
    """

    __tablename__ = "repository_credential"
    id: str = Field(primary_key=True)
    site_id: str = Field(foreign_key="site.id", index=True)
    kind: str
    host: str
    username: str | None = None
    public_key: str | None = None
    fingerprint: str | None = None
    ciphertext: bytes
    wrapped_key: bytes
    key_id: str
    actor: dict[str, Any] | None = json_column()
    created_at: datetime = Field(default_factory=utcnow)
    rotated_at: datetime | None = None
    used_at: datetime | None = None
