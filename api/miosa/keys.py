"""API keys of this dialect: `msk_…`, on the one table of keys, under the one set of rules (api/managed/keys.py)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fastapi import APIRouter
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar
from starlette.responses import Response

from api.durations import YEAR
from api.idempotency import Once
from api.managed.keys import (
    refuse_escalation,
    refuse_others,
    refuse_whole_team,
    require_good,
    require_living,
    visible_keys,
)
from api.miosa.answers import AnyRow, KeyRow
from api.miosa.call import Call, CallDep, KeyedDep, PagingDep
from api.miosa.document import gives, lists
from api.miosa.rows import stamp
from api.miosa.schemas import KeyCreate, KeyUpdate, ScopedKeyCreate
from api.scopes import unknown
from headway.errors import HeadwayError
from headway.ids import new_id
from store import keys
from store.models import ApiKey, utcnow

router = APIRouter(prefix="/api-keys", tags=["api-keys"])
Json = dict[str, Any]
SCOPE: Final = "keys:write"
FINER: Final = {"sandboxes:create": "sandboxes:write", "sandboxes:exec": "sandboxes:write"}
USUAL: Final = ("deployments:write", "domains:write", "sandboxes:write")


def key_row(key: ApiKey) -> Json:
    pin = key.resource or {}
    return {
        "id": key.id,
        "tenant_id": key.team_id,
        "name": key.name,
        "prefix": key.prefix,
        "key_prefix": key.prefix,
        "scopes": sorted(key.scopes),
        "workspace_id": pin.get("id") if pin.get("type") == "workspace" else None,
        "external_user_id": pin.get("external_user_id"),
        "status": "revoked" if key.revoked_at else "active",
        "created_at": stamp(key.created_at),
        "expires_at": stamp(key.expires_at),
        "last_used_at": stamp(key.last_used_at),
        "revoked_at": stamp(key.revoked_at),
    }


def visible(call: Call) -> list[Any]:
    return [*visible_keys(call.caller), col(ApiKey.team_id) == call.team_id, col(ApiKey.kind) != "operator"]


@router.get("", **lists(KeyRow, "List API keys, never their secrets"))
async def list_keys(call: CallDep, paging: PagingDep) -> Response:
    call.caller.require(SCOPE)

    def query(_session: Session) -> SelectOfScalar[ApiKey]:
        return select(ApiKey).where(*visible(call))

    return await call.listed(
        paging, query, lambda _session, rows: [*map(key_row, rows)], time=ApiKey.created_at, id=ApiKey.id
    )


@router.get("/presets", **lists(AnyRow, "Sets of scopes that keys usually have"))
async def list_presets(call: CallDep) -> Response:
    reading = [scope.replace(":write", ":read") for scope in USUAL]
    return call.whole([{"name": "deploy", "scopes": list(USUAL)}, {"name": "read-only", "scopes": reading}])


@router.post("", **gives(KeyRow, "Make an API key; its secret is shown once", 201))
async def create_key(call: KeyedDep, body: KeyCreate) -> Response:
    scopes, expires = known_scopes(body.scopes or USUAL), _expiry(body.expires_at)

    def work(session: Session, once: Once) -> tuple[Json, Json]:
        call.caller.require(SCOPE)
        pin = call.caller.resource
        refuse_whole_team(call.caller, pin)
        once.claim(session)
        return minted(call, session, body.name.strip(), scopes, pin, expires)

    return await call.create(body, work)


@router.post("/scoped", **gives(KeyRow, "Make a key for somebody outside; its secret is shown once", 201))
async def create_scoped_key(call: KeyedDep, body: ScopedKeyCreate) -> Response:
    scopes, expires = known_scopes(body.scopes), _expiry(body.expires_at)

    def work(session: Session, once: Once) -> tuple[Json, Json]:
        call.caller.require(SCOPE)
        own = call.caller.resource
        refuse_whole_team(call.caller, own)
        once.claim(session)
        pin = {**(own or {"type": "team", "id": call.team_id}), "external_user_id": body.external_user_id}
        return minted(call, session, body.external_user_id, scopes, pin, expires)

    return await call.create(body, work)


def known_scopes(given: Iterable[str]) -> frozenset[str]:
    """Raises request.invalid_parameter. To make or to run a sandbox is to write it."""
    scopes = frozenset(FINER.get(scope, scope) for scope in given)
    if strange := unknown(scopes):
        raise HeadwayError("request.invalid_parameter", f"Unknown scopes: {', '.join(strange)}.", param="scopes")
    return scopes


def minted(
    call: Call, session: Session, name: str, scopes: frozenset[str], pin: Json | None, expires: datetime
) -> tuple[Json, Json]:
    """A new key's row with its secret, and without it. Raises key.escalation: nobody makes a key for more."""
    networks = list(call.caller.ip_allowlist)
    refuse_escalation(call.caller, scopes, pin, networks)
    secret = keys.new_secret("service", keys.MSK)
    key = ApiKey(
        id=new_id("key"),
        team_id=call.team_id,
        account_id=None,
        kind="service",
        name=name,
        prefix=keys.shown_prefix(secret),
        secret_sha256=keys.hashed(secret),
        scopes=sorted(scopes),
        resource=pin,
        ip_allowlist=networks,
        expires_at=expires,
    )
    session.add(key)
    session.flush()
    return {**key_row(key), "key": secret, "token": secret}, key_row(key)


def _expiry(given: datetime | None) -> datetime:
    if given is None:
        return utcnow() + timedelta(days=90)
    moment = given.replace(tzinfo=given.tzinfo or UTC)
    if not utcnow() < moment <= utcnow() + YEAR:
        raise HeadwayError("request.invalid_parameter", "A key expires within a year from now.", param="expires_at")
    return moment


def _seen(call: Call, session: Session, key_id: str, *, lock: bool = False) -> ApiKey:
    found = keys.api_key(session, key_id, visible(call), lock=lock)
    call.caller.require(SCOPE)
    return found


def _key(call: Call, session: Session, key_id: str) -> ApiKey:
    found = _seen(call, session, key_id, lock=True)
    refuse_escalation(call.caller, frozenset(found.scopes), found.resource, found.ip_allowlist)
    return found


@router.get("/{key_id}", **gives(KeyRow, "Get a key, without its secret"))
async def get_key(call: CallDep, key_id: str) -> Response:
    return call.one(await call.read(lambda session: key_row(_seen(call, session, key_id))))


@router.get("/{key_id}/events", **lists(AnyRow, "What became of a key, newest first"))
async def list_key_events(call: CallDep, key_id: str) -> Response:
    """What its row remembers; of its uses the last one, to the minute."""
    key = await call.read(lambda session: _seen(call, session, key_id))
    moments = (("created", key.created_at), ("used", key.last_used_at), ("revoked", key.revoked_at))
    told = sorted(((moment, name) for name, moment in moments if moment is not None), reverse=True)
    return call.whole([{"type": f"api_key.{name}", "key_id": key.id, "created_at": stamp(at)} for at, name in told])


@router.patch("/{key_id}", **gives(KeyRow, "Change a key's name or scopes, or revoke it"))
async def update_key(call: CallDep, key_id: str, body: KeyUpdate | None = None) -> Response:
    given = body or KeyUpdate()

    def work(session: Session) -> Json:
        found = _key(call, session, key_id)
        _change(call, session, found, given)
        session.flush()
        return key_row(found)

    row = await call.write(work)
    call.parts.auth.forget()
    return call.one(row)


def _change(call: Call, session: Session, key: ApiKey, given: KeyUpdate) -> None:
    """What was given. Raises key.revoked where it is to live again, and key.escalation."""
    if given.status == "active":
        require_living(key)
    if given.name is not None:
        key.name = given.name.strip()
    if given.scopes is not None:
        scopes = known_scopes(given.scopes)
        refuse_escalation(call.caller, scopes, key.resource, key.ip_allowlist)
        key.scopes = sorted(scopes)
    if given.status == "revoked":
        keys.revoke_key(session, key)


async def _no_presets(call: KeyedDep) -> Response:
    call.caller.require(SCOPE)
    raise HeadwayError("request.unsupported", "The presets are built in: name a key's scopes instead.")


async def _no_preset(call: CallDep, name: str) -> Response:  # noqa: ARG001
    return await _no_presets(call)


for _path, _endpoint, _method in (("/presets", _no_presets, "POST"), ("/presets/{name}", _no_preset, "DELETE")):
    router.add_api_route(
        _path,
        _endpoint,
        methods=[_method],
        status_code=409,
        responses={409: {"description": "Always: out of this platform's scope."}},
        response_model=None,
        name=f"presets_{_method.lower()}",
        summary="Not on this platform",
    )


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
    def work(session: Session, once: Once) -> tuple[Json, Json]:
        found = _key(call, session, key_id)
        refuse_others(call.caller, found)
        once.claim(session)
        require_good(found)
        secret = keys.roll_key(session, found, timedelta(0))
        return {**key_row(found), "key": secret, "token": secret}, key_row(found)

    answer = await call.create(None, work, status=200)
    call.parts.auth.forget()
    return answer
