"""The one interface of all forges, and what can go wrong with any of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

# What a forge shows of it on one line.
MAX_DESCRIPTION: Final = 140


@dataclass(frozen=True)
class Status:
    """`state`: pending | success | failure | canceled. The newest one of a context is what the forge shows."""

    commit: str
    context: str
    state: str
    description: str
    url: str


class ForgeRefused(Exception):
    """It has answered, and another try cannot go better: the token, the repository or the subject is wrong."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class ForgeAway(Exception):
    """Another try may go better. `wait`: the seconds that it asked to be left alone for."""

    def __init__(self, why: str, status: int | None = None, wait: float | None = None) -> None:
        super().__init__(why)
        self.status = status
        self.wait = wait


class Forge(Protocol):
    """A repository at a forge. Every call raises ForgeRefused, ForgeAway, and as the transport does.

    Pull requests and comments are named by the forge's own numbers, as texts.
    """

    async def check(self) -> None:
        """Whether the token may see the repository."""

    async def set_status(self, status: Status, *, again: bool) -> None:
        """`again`: it may be there already, and is not said twice."""

    async def pulls_of(self, branch: str) -> list[str]:
        """The open pull requests from a branch of this very repository."""

    async def comments_with(self, pull: str, mark: str) -> list[str]:
        """The comments that hold a mark, oldest first."""

    async def add_comment(self, pull: str, body: str) -> str: ...

    async def change_comment(self, pull: str, comment: str, body: str) -> bool:
        """Whether it was there."""

    async def delete_comment(self, pull: str, comment: str) -> None: ...
