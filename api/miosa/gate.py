"""The gate of this dialect: request id, credential, organisation, rate limit, body. Pure ASGI, streams pass through."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

import anyio
from sqlmodel import Session, col, or_, select

from api.auth import Caller
from api.gate import App, Message, Receive, Scope, Send, check_body, read_body, replaying
from api.limits import Draw, too_many
from api.miosa.problems import from_exception, problem
from api.parts import Parts
from headway.errors import HeadwayError
from headway.ids import new_id
from store.models import Team
from store.sight import Sight

PREFIX: Final = "/api/v1"
OPEN: Final = frozenset((f"{PREFIX}/openapi.json", f"{PREFIX}/health"))
# Files travel in JSON: their routes read the body themselves, up to this and off the event loop.
FILES: Final = re.compile(r"^/api/v1/sandboxes/[^/]+/(fs|files)(/|$)")
MAX_FILES: Final = 96 << 20


class MiosaGate:
    def __init__(self, app: App, *, parts: Parts) -> None:
        self.app, self.parts = app, parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = new_id("req")
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        extra = [(b"x-request-id", request_id.encode())]
        began = False

        async def answer(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                message["headers"] = [*message.get("headers", ()), *extra]
            await send(message)

        try:
            await self._pass(scope, receive, answer, state, extra)
        except Exception as error:
            if began:
                raise
            await problem(from_exception(error), request_id)(scope, receive, answer)

    async def _pass(
        self, scope: Scope, receive: Receive, send: Send, state: dict[str, Any], extra: list[tuple[bytes, bytes]]
    ) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if "\0" in scope["path"]:
            raise HeadwayError("route.not_found", "There is nothing at this path.")
        if b"%00" in scope["query_string"]:
            raise HeadwayError("request.invalid_parameter", "A query may not hold a NUL character.", param="query")
        if scope["path"] not in OPEN:
            state["caller"] = await self._admit(scope, headers, extra)
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and not FILES.match(scope["path"]):
            body = await read_body(headers, receive)
            check_body(headers, body)
            receive = replaying(body, receive)
        await self.app(scope, receive, send)

    async def _admit(self, scope: Scope, headers: dict[bytes, bytes], extra: list[tuple[bytes, bytes]]) -> Caller:
        client, given = scope.get("client"), headers.get(b"authorization")
        address = client[0] if client else None
        caller = await self.parts.auth.caller(given.decode("latin-1") if given else None, address)
        tenant = headers.get(b"x-miosa-tenant", b"").decode("latin-1").strip()
        caller = await self._within(caller, tenant)
        drawn = self._draw(caller, scope["method"])
        extra += drawn.headers()
        if drawn.retry_after is not None:
            raise too_many(drawn)
        return caller

    async def _within(self, caller: Caller, tenant: str) -> Caller:
        """Everything is scoped to one organisation: the key's own, for the operator also a named one."""
        if not tenant and not caller.operator:
            return caller
        team_id = await anyio.to_thread.run_sync(self._team, tenant) if tenant else caller.team_id
        if team_id is None or (team_id != caller.team_id and not caller.operator):
            raise HeadwayError("tenant.unresolved", "This key is of no such organisation.", param="X-MIOSA-Tenant")
        return replace(caller, team_id=team_id, sight=Sight(team_id=team_id)) if caller.operator else caller

    def _team(self, named: str) -> str | None:
        def look(session: Session) -> str | None:
            return session.exec(select(Team.id).where(or_(col(Team.id) == named, col(Team.slug) == named))).first()

        with self.parts.store.read() as session:
            return look(session)

    def _draw(self, caller: Caller, method: str) -> Draw:
        name = "read" if method in ("GET", "HEAD", "OPTIONS") else "write"
        return self.parts.limiter.draw(caller.key_id, caller.team_id, name, exempt=caller.operator)  # type: ignore[arg-type]
