"""What is known of the branches of remote repositories, and when each is looked at."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from store.models import Json, json_column, utcnow


class RemoteBranch(SQLModel, table=True):
    """The commit that a branch was heard of with last, by a webhook or a poll (`via`), and what was done about it.

    `commit_sha` None: it is gone. `verdict`: known | deployed | ignored | refused; what was refused is heard of again.
    """

    __tablename__ = "remote_branch"
    site_id: str = Field(primary_key=True, foreign_key="site.id")
    branch: str = Field(primary_key=True)
    commit_sha: str | None = None
    via: str
    verdict: str
    reason: str | None = None
    job_id: str | None = None
    heard_at: datetime = Field(default_factory=utcnow)


class RemoteWatch(SQLModel, table=True):
    """How a site's remote is polled. `enabled` None: while the site has a hook; `interval_seconds` None: the setting.

    `attempt` numbers the looks; a look may hand in what it saw until `leased_until`. `failures` counts those in a row
    that saw nothing, `error` is the last one's. `seen_at` None: nothing was seen yet, so that the next look is a
    beginning and deploys nothing.
    """

    __tablename__ = "remote_watch"
    __table_args__ = (Index("remote_watch_next", "next_at"),)
    site_id: str = Field(primary_key=True, foreign_key="site.id")
    enabled: bool | None = None
    interval_seconds: int | None = None
    next_at: datetime = Field(default_factory=utcnow)
    attempt: int = 0
    leased_until: datetime | None = None
    failures: int = 0
    error: Json | None = json_column()
    seen_at: datetime | None = None
