"""What a host found otherwise than it had left it, and put right or had put right."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, text
from sqlmodel import Field, SQLModel

from store.models import utcnow


class Drift(SQLModel, table=True):
    """`kind`: instance | current | tree | contents | release, or host: it was away, or is new, and has to catch up.

    The id is the host's: told twice, it is one row.

    `job_id` is set where the host could not mend it alone: the rollout that does. `mended_at` is None until it is done.
    """

    __table_args__ = (
        Index("drift_env", "env_id", "created_at", "id"),
        Index(
            "drift_open", "env_id", sqlite_where=text("mended_at IS NULL"), postgresql_where=text("mended_at IS NULL")
        ),
    )
    id: str = Field(primary_key=True)
    site_id: str = Field(foreign_key="site.id")
    env_id: str = Field(foreign_key="environment.id")
    host_id: str
    kind: str
    seq: int = Field(sa_type=BigInteger)
    what: str
    job_id: str | None = None
    found_at: datetime
    mended_at: datetime | None = None
    created_at: datetime = Field(default_factory=utcnow)
