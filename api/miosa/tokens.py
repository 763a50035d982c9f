"""Scoped tokens: short-lived keys for a user of one workspace, on the one table of keys."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from fastapi import APIRouter
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar
from starlette.responses import Response

from api.idempotency import Once
from api.miosa.answers import AnyRow, KeyRow
from api.miosa.call import Call, CallDep, KeyedDep, PagingDep
from api.miosa.document import gives, lists
from api.miosa.keys import SCOPE, key_row, known_scopes, minted, visible
from api.miosa.rows import stamp
from api.miosa.schemas import ScopedTokenCreate
from headway.errors import HeadwayError
from store import keys, workspaces
from store.models import ApiKey, utcnow
from store.workspaces import Ownership, owner_of

router = APIRouter(prefix="/tokens/scoped", tags=["api-keys"])
Json = dict[str, Any]
GIVEN: Final = ("deployments:read", "deployments:write", "sandboxes:read", "sandboxes:write")


def token_row(row: Json) -> Json:
    return {**row, "user_id": row["external_user_id"]}


@router.post("", **gives(AnyRow, "Make a token for a user of a workspace; it is shown once", 201))
async def create_token(call: KeyedDep, body: ScopedTokenCreate) -> Response:
    scopes = known_scopes(body.scopes or [scope for scope in GIVEN if scope in call.caller.scopes])
    expires = utcnow() + timedelta(seconds=body.expires_in_seconds)

    def work(session: Session, once: Once) -> tuple[Json, Json]:
        home = workspaces.workspace(session, call.team_id, body.workspace_id)
        call.caller.require(SCOPE)
        if call.sight.project_ids is not None:
            raise HeadwayError("key.escalation", "This key is limited to some projects, and a token to a workspace.")
        once.claim(session)
        # What the token makes needs a project: there is one from now on.
        owner_of(session, call.sight, call.team_id, Ownership(workspace_id=home.id))
        pin = {"type": "workspace", "id": home.id, "external_user_id": body.user_id}
        shown, kept = minted(call, session, body.user_id, scopes, pin, expires)
        return token_row(shown), token_row(kept)

    return await call.create(body, work)


def _tokens(call: Call) -> SelectOfScalar[ApiKey]:
    of_workspaces = col(ApiKey.resource)["type"].as_string() == "workspace"
    return select(ApiKey).where(*visible(call), of_workspaces, col(ApiKey.revoked_at).is_(None))


@router.get("", **lists(KeyRow, "List scoped tokens, never the secrets"))
async def list_tokens(call: CallDep, paging: PagingDep) -> Response:
    call.caller.require(SCOPE)
    return await call.listed(
        paging,
        lambda _session: _tokens(call),
        lambda _session, rows: [token_row(key_row(row)) for row in rows],
        time=ApiKey.created_at,
        id=ApiKey.id,
    )


@router.delete("/{token_id}", **gives(AnyRow, "Revoke a scoped token at once"))
async def revoke_token(call: CallDep, token_id: str) -> Response:
    def work(session: Session) -> Json:
        found = keys.api_key(session, token_id, visible(call), lock=True)
        call.caller.require(SCOPE)
        keys.revoke_key(session, found)
        return {"id": found.id, "revoked": True, "revoked_at": stamp(found.revoked_at)}

    row = await call.write(work)
    call.parts.auth.forget()
    return call.one(row)
