"""What builds leave beside their artifact: bills of materials, and logs that have left the events' folder."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel

from store.models import utcnow


class BuildBill(SQLModel, table=True):
    """A build's software bill of materials: `sites/{site_id}/artifacts/{digest}/sbom-{sha256}.json`."""

    __tablename__ = "build_bill"
    build_id: str = Field(primary_key=True, foreign_key="build.id")
    digest: str
    sha256: str
    components: int
    created_at: datetime = Field(default_factory=utcnow)


class JobLog(SQLModel, table=True):
    """An ended job's whole event log, compressed: `logs/{team_id}/{job_id}.jsonl.zst`; `size` in bytes."""

    __tablename__ = "job_log"
    job_id: str = Field(primary_key=True)
    key: str
    sha256: str
    lines: int
    size: int = Field(sa_type=BigInteger)
    created_at: datetime = Field(default_factory=utcnow)
