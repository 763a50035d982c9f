"""Bodies and rows of what a site reports to its forge."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.managed.answers import Row
from api.managed.answers_around import TryRow
from api.managed.schemas import Body, Url

Json = dict[str, Any]
Provider = Literal["github", "gitlab", "gitea"]


class ForgeLinkPut(Body):
    """What is left out is taken from the site's own repository."""

    provider: Provider = Field(description="gitea: Forgejo and Gogs too.")
    token: str | None = Field(
        default=None,
        min_length=1,
        max_length=2000,
        pattern=r"^[!-~]+$",
        description="May set commit statuses and write comments. Never shown; left out, the one that is there stays.",
    )
    api_url: Url | None = Field(default=None, description="As `https://git.example.com/api/v1`.")
    repository: str | None = Field(default=None, min_length=3, max_length=500, description="Its path there.")
    statuses: bool = Field(default=True, description="Whether commits get a status for each environment.")
    comments: bool = Field(default=True, description="Whether pull requests get a comment about their preview.")


class ForgeLinkRow(Row):
    """`failing_since`: the first report that was given up after the last one that arrived."""

    site_id: str
    provider: Provider
    api_url: str
    repository: str
    statuses: bool
    comments: bool
    failing_since: str | None
    last_error: str | None
    created_at: str
    updated_at: str


class ForgeReportRow(Row):
    """`check`: whether the token may see the repository. `skipped`: no pull request was open for the branch."""

    id: str
    kind: Literal["status", "comment", "check"]
    status: Literal["pending", "delivered", "failed", "skipped"]
    state: str | None = Field(description="What the forge is to show.")
    commit_sha: str | None
    branch: str | None
    environment: str | None
    job_id: str | None
    comments: Json = Field(description="The forge's ids of our comments, by pull request.")
    attempts: int
    tries: list[TryRow]
    created_at: str
    ended_at: str | None
