"""What a builder asks for a look at a remote repository."""

from __future__ import annotations

from pydantic import Field

from headway.broker.builds import RepositoryAccess
from headway.broker.wire import Wire


class BeginLook(Wire):
    attempt: int = Field(ge=1)


class LookSpec(Wire):
    """A remote whose branches are to be looked at, and nothing else of it."""

    site_id: str
    repository: str
    access: RepositoryAccess | None = None


class Seen(Wire):
    """The commit of each branch, or why nothing was seen: `code` is one of `headway.errors.CODES`."""

    attempt: int = Field(ge=1)
    branches: dict[str, str] = Field(default_factory=dict, max_length=10_000)
    code: str | None = Field(default=None, max_length=100)
    message: str = Field(default="", max_length=1000)


class Taken(Wire):
    """How many branches were news."""

    news: int
