"""What a request of either dialect has: its caller, its parts, and the way to the rows and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import anyio
from fastapi import Request
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from api.auth import Caller
from api.parts import Parts
from store.sight import Sight

T = TypeVar("T")


@dataclass(frozen=True)
class Conversation:
    parts: Parts
    caller: Caller
    request: Request
    idempotency_key: str | None = None

    @property
    def sight(self) -> Sight:
        return self.caller.sight

    async def read(self, work: Callable[[Session], T]) -> T:
        """`work` in a thread, in a session for reading."""

        def run() -> T:
            with self.parts.store.read() as session:
                return work(session)

        return await anyio.to_thread.run_sync(run)

    async def write(self, work: Callable[[Session], T]) -> T:
        """`work` in a thread, in one write transaction; again where a concurrent one took a unique value first."""

        return await anyio.to_thread.run_sync(self.write_now, self.parts, work)

    @staticmethod
    def write_now(parts: Parts, work: Callable[[Session], T]) -> T:
        """The same, from a thread."""
        for _ in range(2):
            try:
                return parts.store.in_write(work)
            except IntegrityError:
                continue
        return parts.store.in_write(work)
