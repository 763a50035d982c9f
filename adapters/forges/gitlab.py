"""GitLab's REST API: commit statuses, merge requests and their notes."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from adapters.forges.forge import ForgeAway, ForgeRefused, Status
from adapters.forges.wire import PAGE, Wire, number
from adapters.webhooks.targets import Targets

_STATES: Final = {"pending": "running", "success": "success", "failure": "failed", "canceled": "canceled"}


class GitLab:
    """`repository` is the project's path, `group/subgroup/name`."""

    def __init__(self, wire: Wire, repository: str) -> None:
        self._wire = wire
        self._at = f"/projects/{quote(repository, safe='')}"

    @classmethod
    def open(cls, targets: Targets, api_url: str, repository: str, token: str, seconds: float) -> GitLab:
        return cls(Wire(targets, api_url, {"PRIVATE-TOKEN": token}, token, seconds), repository)

    async def check(self) -> None:
        await self._wire.get(self._at)

    async def set_status(self, status: Status, *, again: bool) -> None:
        """A status is a row that changes. One that is there as it should be is refused, which is no failure."""
        wanted = {
            "state": _STATES[status.state],
            "name": status.context,
            "description": status.description,
            "target_url": status.url,
        }
        if again and await self._shows(status.commit, wanted):
            return
        try:
            await self._wire.ask("POST", f"{self._at}/statuses/{status.commit}", wanted)
        except ForgeRefused as refusal:
            if refusal.status != 400 or not await self._shows(status.commit, {"state": wanted["state"]}, status):
                raise

    async def _shows(self, commit: str, wanted: dict[str, str], of: Status | None = None) -> bool:
        name = of.context if of else wanted["name"]
        newest: dict[str, Any] = {}
        async for row in self._wire.pages(f"{self._at}/repository/commits/{commit}/statuses", name=name, per_page=PAGE):
            if row.get("name") == name and (not newest or int(number(row, "id")) > newest["id"]):
                newest = row
        said = {**newest, "state": newest.get("status")}
        return all(said.get(key) == value for key, value in wanted.items())

    async def pulls_of(self, branch: str) -> list[str]:
        rows = self._wire.pages(f"{self._at}/merge_requests", state="opened", source_branch=branch, per_page=PAGE)
        return [
            number(row, "iid")
            async for row in rows
            if row.get("source_project_id") == row.get("target_project_id") and row.get("source_branch") == branch
        ]

    async def comments_with(self, pull: str, mark: str) -> list[str]:
        rows = self._wire.pages(self._notes(pull), sort="asc", order_by="created_at", per_page=PAGE)
        return sorted([number(row, "id") async for row in rows if mark in (row.get("body") or "")], key=int)

    async def add_comment(self, pull: str, body: str) -> str:
        return number(await self._wire.ask("POST", self._notes(pull), {"body": body}), "id")

    async def change_comment(self, pull: str, comment: str, body: str) -> bool:
        try:
            await self._wire.ask("PUT", f"{self._notes(pull)}/{comment}", {"body": body})
        except ForgeAway as failure:
            if failure.status == 404:
                return False
            raise
        return True

    async def delete_comment(self, pull: str, comment: str) -> None:
        try:
            await self._wire.ask("DELETE", f"{self._notes(pull)}/{comment}")
        except ForgeAway as failure:
            if failure.status != 404:
                raise

    def _notes(self, pull: str) -> str:
        return f"{self._at}/merge_requests/{pull}/notes"
