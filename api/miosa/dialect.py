"""This dialect at the gate: every request is within one organisation; files travel in bodies of their own size."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import anyio
from sqlmodel import col, or_, select
from starlette.responses import Response

from api.auth import Caller
from api.dialect import Headers
from api.limits import Name
from api.miosa.problems import from_exception, problem
from headway.errors import HeadwayError
from store.models import Team
from store.session import Store
from store.sight import Sight

PREFIX: Final = "/api/v1"
OPEN: Final = frozenset((f"{PREFIX}/openapi.json", f"{PREFIX}/health"))
# Files travel in JSON: their routes read the body themselves, up to this and off the event loop.
FILES: Final = re.compile(r"^/api/v1/sandboxes/[^/]+/(fs|files)(/|$)")
MAX_FILES: Final = 96 << 20


class Miosa:
    headers: Sequence[tuple[bytes, bytes]] = ()

    def __init__(self, store: Store) -> None:
        self._store = store

    def problem(self, error: Exception, request_id: str, headers: Mapping[str, str] | None = None) -> Response:
        return problem(from_exception(error), request_id, headers)

    def is_open(self, path: str) -> bool:
        return path in OPEN

    def reads_body(self, path: str) -> bool:
        return FILES.match(path) is not None

    def bucket(self, method: str, path: str) -> Name:  # noqa: ARG002
        return "read" if method in ("GET", "HEAD", "OPTIONS") else "write"

    async def within(self, caller: Caller, headers: Headers) -> Caller:
        """Everything is scoped to one organisation: the key's own, for the operator also a named one."""
        tenant = headers.get(b"x-miosa-tenant", b"").decode("latin-1").strip()
        if not tenant and not caller.operator:
            return caller
        team_id = await anyio.to_thread.run_sync(self._team, tenant) if tenant else caller.team_id
        if team_id is None or (team_id != caller.team_id and not caller.operator):
            raise HeadwayError("tenant.unresolved", "This key is of no such organisation.", param="X-MIOSA-Tenant")
        return replace(caller, team_id=team_id, sight=Sight(team_id=team_id)) if caller.operator else caller

    def check(self, headers: Headers) -> None:
        pass

    def _team(self, named: str) -> str | None:
        with self._store.read() as session:
            return session.exec(select(Team.id).where(or_(col(Team.id) == named, col(Team.slug) == named))).first()
