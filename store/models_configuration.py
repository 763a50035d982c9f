"""The tables of configuration: values by version, what each rollout froze, and the hosts that it is sealed to."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, Column, Index, LargeBinary, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from store.models import Json, json_column, utcnow


class ConfigValue(SQLModel, table=True):
    """One version of a variable or a secret. Never changed, but for its end and for what hides the value.

    `owner_id` is the environment whose value it is, or the site whose default. `ciphertext` is under a key of its own,
    and `wrapped_key` is that one under the key `key_id`, which is not in the database; all three are None once the
    value has been withdrawn. `ended_by` is who set a newer version, unset the name or withdrew this version. There is
    no digest of a value anywhere: it could be guessed.
    """

    __tablename__ = "config_value"
    __table_args__ = (
        UniqueConstraint("owner_id", "name", "version"),
        Index(
            "config_value_current",
            "owner_id",
            "name",
            unique=True,
            sqlite_where=text("current = 1"),
            postgresql_where=text("current"),
        ),
    )
    id: str = Field(primary_key=True)
    site_id: str = Field(foreign_key="site.id", index=True)
    owner_id: str
    name: str
    secret: bool
    version: int
    current: bool = True
    ciphertext: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    wrapped_key: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    key_id: str | None = Field(default=None, index=True)
    actor: Json | None = json_column()
    created_at: datetime = Field(default_factory=utcnow)
    ended_at: datetime | None = None
    ended_by: Json | None = json_column()
    revoked_at: datetime | None = None


class ConfigEntry(SQLModel, table=True):
    """A value in configuration number `config_version` of an environment. Number 0 is the empty one: it has no rows."""

    __tablename__ = "config_entry"
    env_id: str = Field(primary_key=True, foreign_key="environment.id")
    config_version: int = Field(primary_key=True)
    value_id: str = Field(primary_key=True, foreign_key="config_value.id", index=True)


class Host(SQLModel, table=True):
    """A serving machine. `public_key` is pinned: another one waits in `offered_key` until an operator accepts it.

    It is empty for a host that was let in and has not said a word yet. `secret_sha256` is that of its own credential
    for the broker; None for the one beside the API, which has the role's.
    """

    __table_args__ = (Index("host_secret", "secret_sha256", unique=True),)
    id: str = Field(primary_key=True)
    labels: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    public_key: str
    offered_key: str | None = None
    secret_sha256: str | None = None
    created_at: datetime = Field(default_factory=utcnow)
    last_seen_at: datetime = Field(default_factory=utcnow)
