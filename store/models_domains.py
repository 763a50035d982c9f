"""Domains: host names of the callers' own. Which of them lead anywhere says the table of host names alone."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from store.models import json_column, utcnow

Json = dict[str, Any]


class Domain(SQLModel, table=True):
    """`status`: pending | verified | active | failed | removed. Before it is verified it takes nothing from anybody:
    several may ask for one name, and the one who proves it gets it.

    `token` is public: it stands in the DNS. `redirect_policy`: none | apex_to_www | www_to_apex. `found` is what the
    last look at the DNS saw, `points_here` whether it led here.
    """

    __table_args__ = (
        Index(
            "domain_env",
            "env_id",
            "hostname",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index("domain_site", "site_id", "created_at", "id"),
    )
    id: str = Field(primary_key=True)
    team_id: str = Field(foreign_key="team.id", index=True)
    site_id: str = Field(foreign_key="site.id")
    env_id: str = Field(foreign_key="environment.id")
    hostname: str = Field(index=True)
    status: str = "pending"
    token: str
    redirect_to_primary: bool = False
    redirect_policy: str = "none"
    points_here: bool = False
    found: Json | None = json_column()
    error: Json | None = json_column()
    actor: Json | None = json_column()
    created_at: datetime = Field(default_factory=utcnow)
    checked_at: datetime | None = None
    verified_at: datetime | None = None
    tls_issued_at: datetime | None = None
    deleted_at: datetime | None = None
