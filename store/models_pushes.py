"""What was pushed to a site's hosted repository."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from store.models import utcnow


class Push(SQLModel, table=True):
    """One ref of one `git push`: what its branch is to become once `job_id` (None: at once) has succeeded.

    `new_sha` is None for a deletion. `seq` orders the pushes of a site as they were accepted; a branch never goes back
    to an earlier one. `moved` is None until it is settled, then whether the branch was moved.
    """

    __table_args__ = (
        UniqueConstraint("site_id", "seq"),
        Index("push_branch", "site_id", "branch", "seq"),
        Index(
            "push_open", "job_id", sqlite_where=text("settled_at IS NULL"), postgresql_where=text("settled_at IS NULL")
        ),
    )
    id: str = Field(primary_key=True)
    site_id: str = Field(foreign_key="site.id")
    seq: int
    branch: str
    old_sha: str | None = None
    new_sha: str | None = None
    env_id: str | None = None
    job_id: str | None = None
    actor_id: str | None = None
    moved: bool | None = None
    created_at: datetime = Field(default_factory=utcnow)
    settled_at: datetime | None = None
