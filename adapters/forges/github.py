"""GitHub's REST API, and what Gitea and its kin do otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import quote

from adapters.forges.forge import ForgeAway, ForgeRefused, Status
from adapters.forges.wire import PAGE, Wire, number
from adapters.webhooks.targets import Targets

_STATES: Final = {"pending": "pending", "success": "success", "failure": "failure", "canceled": "error"}
_GONE: Final = (404, 410)


class GitHub:
    """`repository` is `owner/name`."""

    page: int = PAGE
    size = "per_page"

    def __init__(self, wire: Wire, repository: str) -> None:
        self._wire = wire
        self._owner = repository.partition("/")[0]
        self._repository = repository
        self._at = f"/repos/{quote(repository, safe='/')}"

    @classmethod
    def open(cls, targets: Targets, api_url: str, repository: str, token: str, seconds: float) -> GitHub:
        return cls(Wire(targets, api_url, cls.headers(token), token, seconds), repository)

    @classmethod
    def headers(cls, token: str) -> dict[str, str]:
        return {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {token}",
            "X-GitHub-Api-Version": "2022-11-28",
        }

    async def check(self) -> None:
        await self._wire.get(self._at)

    async def set_status(self, status: Status, *, again: bool) -> None:
        wanted = {
            "state": _STATES[status.state],
            "target_url": status.url,
            "description": status.description,
            "context": status.context,
        }
        if again and await self._shows(status.commit, wanted):
            return
        await self._wire.ask("POST", f"{self._at}/statuses/{status.commit}", wanted)

    async def _shows(self, commit: str, wanted: dict[str, str]) -> bool:
        """Whether the newest status of the context is this one."""
        newest: dict[str, Any] = {}
        async for row in self._pages(f"{self._at}/commits/{commit}/statuses"):
            if row.get("context") == wanted["context"]:
                newest = row
                break
        said = {**newest, "state": newest.get("state") or newest.get("status")}
        return all(said.get(name) == value for name, value in wanted.items())

    async def pulls_of(self, branch: str) -> list[str]:
        rows = self._pages(f"{self._at}/pulls", state="open", head=f"{self._owner}:{branch}")
        return [number(row, "number") async for row in rows if self._is_from(row, branch)]

    def _is_from(self, pull: dict[str, Any], branch: str) -> bool:
        """Forks have branches of the same name."""
        head = pull.get("head") or {}
        home = (head.get("repo") or {}).get("full_name") or ""
        return head.get("ref") == branch and home.lower() == self._repository.lower()

    async def comments_with(self, pull: str, mark: str) -> list[str]:
        rows = self._pages(f"{self._at}/issues/{pull}/comments")
        return sorted([number(row, "id") async for row in rows if mark in (row.get("body") or "")], key=int)

    async def add_comment(self, pull: str, body: str) -> str:
        made = await self._wire.ask("POST", f"{self._at}/issues/{pull}/comments", {"body": body})
        return number(made, "id")

    async def change_comment(self, pull: str, comment: str, body: str) -> bool:  # noqa: ARG002 - GitLab needs it
        try:
            await self._wire.ask("PATCH", f"{self._at}/issues/comments/{comment}", {"body": body})
        except (ForgeAway, ForgeRefused) as failure:
            if failure.status in _GONE:
                return False
            raise
        return True

    async def delete_comment(self, pull: str, comment: str) -> None:  # noqa: ARG002
        try:
            await self._wire.ask("DELETE", f"{self._at}/issues/comments/{comment}")
        except (ForgeAway, ForgeRefused) as failure:
            if failure.status not in _GONE:
                raise

    def _pages(self, path: str, **params: Any) -> AsyncIterator[Any]:
        return self._wire.pages(path, **params, **{self.size: self.page})


class Gitea(GitHub):
    """Gitea, Forgejo, Gogs. It gives at most 50 rows a page, and does not filter by head."""

    page = 50
    size = "limit"

    @classmethod
    def headers(cls, token: str) -> dict[str, str]:
        return {"Authorization": f"token {token}"}

    async def pulls_of(self, branch: str) -> list[str]:
        rows = self._pages(f"{self._at}/pulls", state="open")
        return [number(row, "number") async for row in rows if self._is_from(row, branch)]
