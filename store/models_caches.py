"""Caches of builds that lie in the object store."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, false
from sqlmodel import Field, SQLModel

from store.models import utcnow


class BuildCache(SQLModel, table=True):
    """What an environment's builds left for a lock file: `sites/{site_id}/caches/{env_id}/{key}/{sha256}`.

    A row is written before the upload, so that nothing lies there unnamed; it counts once it is `ready`.
    """

    __tablename__ = "build_cache"
    __table_args__ = (Index("build_cache_used", "site_id", "used_at"),)
    site_id: str = Field(primary_key=True, foreign_key="site.id")
    env_id: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    sha256: str = Field(primary_key=True)
    size: int = Field(sa_type=BigInteger)
    build_id: str
    ready: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    created_at: datetime = Field(default_factory=utcnow)
    used_at: datetime = Field(default_factory=utcnow)
