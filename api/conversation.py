"""What a request of either dialect has: its caller, its parts, and the way to the rows and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final, TypeVar

import anyio
from fastapi import Request
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from api.auth import Caller
from api.parts import Parts
from headway.errors import HeadwayError
from store.audit import Called, note_call
from store.sight import Sight

T = TypeVar("T")
READS: Final = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Conversation:
    parts: Parts
    caller: Caller
    request: Request
    idempotency_key: str | None = None
    dialect: ClassVar[str] = "managed"

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
        """`work` in a thread, in one write transaction; again where a concurrent one took a unique value first.

        The first change of a request takes the request's row of the audit log with it.
        """
        state = self.request.state
        noted = self.request.method in READS or getattr(state, "noted", False)

        def change(session: Session) -> T:
            made = work(session)
            if not noted:
                note_call(session, self.called())
            return made

        made = await anyio.to_thread.run_sync(self.write_now, self.parts, change)
        state.noted = True
        return made

    @staticmethod
    def write_now(parts: Parts, work: Callable[[Session], T]) -> T:
        """The same, from a thread, and without a request to note."""
        for _ in range(2):
            try:
                return parts.store.in_write(work)
            except IntegrityError:
                continue
        return parts.store.in_write(work)

    async def is_let_in_still(self) -> bool:
        """Whether the credential is as good now as it was: a stream may outlast it."""
        client, given = self.request.client, self.request.headers.get("authorization")
        try:
            now = await self.parts.auth.caller(given, client.host if client is not None else None)
        except HeadwayError:
            return False
        then = self.caller
        return then.operator or (now.role, now.scopes, now.sight) == (then.role, then.scopes, then.sight)

    def called(self) -> Called:
        """This request, as the audit log keeps it: never its body, which may hold a secret."""
        request, caller = self.request, self.caller
        return Called(
            dialect=self.dialect,
            method=request.method,
            path=request.url.path,
            action=getattr(request.scope.get("route"), "name", ""),
            named=[str(value) for value in request.path_params.values()],
            team_id=caller.team_id,
            actor=caller.actor,
            account_id=caller.account_id,
            address=request.client.host if request.client is not None else None,
            request_id=str(request.state.request_id),
        )
