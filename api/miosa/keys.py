"""API keys of this dialect: `msk_…`, on the one table of keys, under the one set of rules (api/managed/keys.py)."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any, Final

from fastapi import APIRouter
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar
from starlette.responses import Response

from api.durations import YEAR
from api.idempotency import Once
from api.managed.keys import refuse_escalation, refuse_whole_team, visible_keys
from api.miosa.call import Call, CallDep, KeyedDep, PagingDep
from api.miosa.document import gives, lists
from api.miosa.rows import stamp
from api.miosa.schemas import AnyRow, KeyCreate, KeyRow
from api.scopes import unknown
from headway.errors import HeadwayError
from headway.ids import new_id
from store import keys
from store.models import ApiKey, utcnow

router = APIRouter(prefix="/api-keys", tags=["api-keys"])
Json = dict[str, Any]
SCOPE: Final = "keys:write"
USUAL: Final = ("deployments:write", "domains:write", "sandboxes:write")


def key_row(key: ApiKey) -> Json:
    return {
        "id": key.id,
        "tenant_id": key.team_id,
        "name": key.name,
        "prefix": key.prefix,
        "key_prefix": key.prefix,
        "scopes": sorted(key.scopes),
        "status": "revoked" if key.revoked_at else "active",
        "created_at": stamp(key.created_at),
        "expires_at": stamp(key.expires_at),
        "last_used_at": stamp(key.last_used_at),
        "revoked_at": stamp(key.revoked_at),
    }


def _visible(call: Call) -> list[Any]:
    return [*visible_keys(call.caller), col(ApiKey.team_id) == call.team_id, col(ApiKey.kind) != "operator"]


@router.get("", **lists(KeyRow, "List API keys, never their secrets"))
async def list_keys(call: CallDep, paging: PagingDep) -> Response:
    call.caller.require(SCOPE)

    def query(_session: Session) -> SelectOfScalar[ApiKey]:
        return select(ApiKey).where(*_visible(call))

    return await call.listed(
        paging, query, lambda _session, rows: [*map(key_row, rows)], time=ApiKey.created_at, id=ApiKey.id
    )


@router.get("/presets", **lists(AnyRow, "Sets of scopes that keys usually have"))
async def list_presets(call: CallDep) -> Response:
    reading = [scope.replace(":write", ":read") for scope in USUAL]
    return call.whole([{"name": "deploy", "scopes": list(USUAL)}, {"name": "read-only", "scopes": reading}])


@router.post("", **gives(KeyRow, "Make an API key; its secret is shown once", 201))
async def create_key(call: KeyedDep, body: KeyCreate) -> Response:
    scopes = frozenset(body.scopes or USUAL)
    if strange := unknown(scopes):
        raise HeadwayError("request.invalid_parameter", f"Unknown scopes: {', '.join(strange)}.", param="scopes")
    expires = _expiry(body)

    def work(session: Session, once: Once) -> tuple[Json, Json]:
        call.caller.require(SCOPE)
        pin = call.caller.resource
        refuse_escalation(call.caller, scopes, pin, list(call.caller.ip_allowlist))
        refuse_whole_team(call.caller, pin)
        once.claim(session)
        secret = keys.new_secret("service", keys.MSK)
        key = ApiKey(
            id=new_id("key"),
            team_id=call.team_id,
            account_id=None,
            kind="service",
            name=body.name.strip(),
            prefix=keys.shown_prefix(secret),
            secret_sha256=keys.hashed(secret),
            scopes=sorted(scopes),
            resource=pin,
            ip_allowlist=list(call.caller.ip_allowlist),
            expires_at=expires,
        )
        session.add(key)
        session.flush()
        return {**key_row(key), "key": secret, "token": secret}, key_row(key)

    return await call.create(body, work)


def _expiry(body: KeyCreate) -> Any:
    if body.expires_at is None:
        return utcnow() + timedelta(days=90)
    moment = body.expires_at.replace(tzinfo=body.expires_at.tzinfo or UTC)
    if not utcnow() < moment <= utcnow() + YEAR:
        raise HeadwayError("request.invalid_parameter", "A key expires within a year from now.", param="expires_at")
    return moment


def _key(call: Call, session: Session, key_id: str) -> ApiKey:
    found = keys.api_key(session, key_id, _visible(call), lock=True)
    call.caller.require(SCOPE)
    refuse_escalation(call.caller, frozenset(found.scopes), found.resource, found.ip_allowlist)
    return found


@router.delete("/{key_id}", **gives(KeyRow, "Revoke a key at once"))
async def revoke_key(call: CallDep, key_id: str) -> Response:
    def work(session: Session) -> Json:
        found = _key(call, session, key_id)
        keys.revoke_key(session, found)
        return key_row(found)

    row = await call.write(work)
    call.parts.auth.forget()
    return call.one(row)


@router.post("/{key_id}/rotate", **gives(KeyRow, "A new secret; the old one ends at once"))
async def rotate_key(call: KeyedDep, key_id: str) -> Response:
    def work(session: Session) -> Json:
        found = _key(call, session, key_id)
        if found.revoked_at is not None:
            raise HeadwayError("auth.revoked_key", "A revoked key is not rotated: make a new one.")
        secret = keys.roll_key(session, found, timedelta(0))
        return {**key_row(found), "key": secret, "token": secret}

    row = await call.write(work)
    call.parts.auth.forget()
    return call.one(row)
