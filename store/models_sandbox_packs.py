"""What lies in the object store for sandboxes: packs, snapshots that name some of them, and leases on both."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index
from sqlmodel import Field, SQLModel

from store.models import utcnow


class SandboxPack(SQLModel, table=True):
    """`sandboxes/{team_id}/packs/{sha256}`: noted before it is uploaded, so that none is there without a row.

    `marked_at`: since then nothing needs it. `looked_at`: how much of it counts was looked at then.
    """

    __tablename__ = "sandbox_pack"
    team_id: str = Field(primary_key=True, foreign_key="team.id")
    sha256: str = Field(primary_key=True)
    size: int = Field(sa_type=BigInteger)
    created_at: datetime = Field(default_factory=utcnow)
    marked_at: datetime | None = None
    looked_at: datetime | None = None


class Snapshot(SQLModel, table=True):
    """`sandboxes/{team_id}/snapshots/{sha256}.json`: a frozen tree."""

    __tablename__ = "sandbox_snapshot"
    team_id: str = Field(primary_key=True, foreign_key="team.id")
    sha256: str = Field(primary_key=True)
    created_at: datetime = Field(default_factory=utcnow)
    marked_at: datetime | None = None


class SnapshotPack(SQLModel, table=True):
    """A pack that a snapshot names; it has been named no more since `left_at`, but readers may have the older list."""

    __tablename__ = "sandbox_snapshot_pack"
    __table_args__ = (Index("sandbox_snapshot_pack_pack", "team_id", "pack_sha256"),)
    team_id: str = Field(primary_key=True)
    sha256: str = Field(primary_key=True)
    pack_sha256: str = Field(primary_key=True)
    left_at: datetime | None = None


class SandboxLease(SQLModel, table=True):
    """A write, a freeze or a command (`holder`) that counts on a pack or a snapshot which no row names yet."""

    __tablename__ = "sandbox_lease"
    __table_args__ = (Index("sandbox_lease_sha256", "team_id", "sha256"),)
    holder: str = Field(primary_key=True)
    team_id: str = Field(primary_key=True)
    sha256: str = Field(primary_key=True)
    expires_at: datetime
