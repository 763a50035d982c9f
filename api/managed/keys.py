"""API keys (contract section 3.6). No key gives what it does not hold; a secret is shown once."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import Any, Final

from fastapi import APIRouter
from sqlalchemy import ColumnElement, or_
from sqlmodel import Session, col, select
from starlette.responses import Response

from api.auth import Caller
from api.durations import YEAR, duration
from api.idempotency import Once
from api.managed.answers import DeletedRow
from api.managed.answers_around import KeyRow, NewKeyRow
from api.managed.call import Call, CallDep, KeyedDep, PagingDep
from api.managed.documents import gives, lists
from api.managed.rows_around import key_row
from api.managed.schemas import KeyCreate, KeyRoll, KeyUpdate, Pin
from api.scopes import PRESETS, ROLES, SCOPES, implied, unknown
from headway.errors import HeadwayError
from headway.ids import new_id
from store import accounts, environments, keys, projects, sites
from store.models import ApiKey, Environment, Membership, Site, utcnow

router = APIRouter(prefix="/api-keys", tags=["api-keys"])
Json = dict[str, Any]
SCOPE: Final = "keys:write"
LONGEST_GRACE: Final = timedelta(days=30)


@router.get("", **lists(KeyRow, "List API keys"))
async def list_keys(call: CallDep, paging: PagingDep) -> Response:
    call.caller.require(SCOPE)
    visible = visible_keys(call.caller)
    return await call.page(paging, lambda session, page: keys.list_keys(session, visible, page), key_row)


@router.post("", **gives(NewKeyRow, "Make an API key", status=201, located=True))
async def create_key(call: KeyedDep, body: KeyCreate) -> Response:
    scopes, networks = expand(body.scopes), check_networks(body.ip_allowlist)
    life = duration(body.expires_in, param="expires_in", longest=YEAR, shortest=timedelta(seconds=1))

    def work(session: Session, once: Once) -> tuple[Json, Json]:
        call.caller.require(SCOPE)
        key, secret = drafted(call, session, body, scopes, networks)
        once.claim(session)
        key.expires_at = utcnow() + life
        session.add(key)
        session.flush()
        return {**key_row(key), "secret": secret}, key_row(key)

    return await call.create(body, work, located=True)


@router.get("/{key_id}", **gives(KeyRow, "Get an API key's metadata"))
async def get_key(call: CallDep, key_id: str) -> Response:
    return call.one(key_row(await call.read(lambda session: _key(call, session, key_id))))


@router.patch("/{key_id}", **gives(KeyRow, "Change a key's name, scopes, life or allowlist"))
async def update_key(call: CallDep, key_id: str, body: KeyUpdate) -> Response:
    networks = check_networks(body.ip_allowlist) if body.ip_allowlist is not None else None
    scopes = expand(body.scopes) if body.scopes is not None else None

    def work(session: Session) -> Json:
        key = _key(call, session, key_id, lock=True)
        refuse_escalation(call.caller, frozenset(key.scopes), key.resource, key.ip_allowlist)
        require_living(key)
        _change(call, session, key, body, scopes, networks)
        session.add(key)
        session.flush()
        return key_row(key)

    row = await call.write(work)
    call.parts.auth.forget()
    return call.one(row)


@router.delete("/{key_id}", **gives(DeletedRow, "Revoke a key at once"))
async def revoke_key(call: CallDep, key_id: str) -> Response:
    def work(session: Session) -> str:
        key = _key(call, session, key_id, lock=True)
        keys.revoke_key(session, key)
        return key.id

    revoked = await call.write(work)
    call.parts.auth.forget()
    return call.one({"id": revoked, "deleted": True})


@router.post("/{key_id}/roll", **gives(NewKeyRow, "A new secret; the old one is good for a grace period", status=201))
async def roll_key(call: KeyedDep, key_id: str, body: KeyRoll | None = None) -> Response:
    grace = duration((body or KeyRoll()).grace_period, param="grace_period", longest=LONGEST_GRACE)

    def work(session: Session, once: Once) -> tuple[Json, Json]:
        key = _key(call, session, key_id, lock=True)
        refuse_escalation(call.caller, frozenset(key.scopes), key.resource, key.ip_allowlist)
        refuse_others(call.caller, key)
        once.claim(session)
        require_good(key)
        secret = keys.roll_key(session, key, grace)
        return {**key_row(key), "secret": secret}, key_row(key)

    answer = await call.create(body, work)
    call.parts.auth.forget()
    return answer


def visible_keys(caller: Caller) -> list[ColumnElement[bool]]:
    """The team's keys; only those within a pinned key's own pin, or within the projects of a member who is limited
    to some, beside the member's own; the operator's to the operator alone."""
    if caller.operator:
        return []
    found: list[ColumnElement[bool]] = [col(ApiKey.team_id) == caller.team_id, col(ApiKey.kind) != "operator"]
    if caller.resource is not None and caller.resource["type"] != "team":
        found.append(
            or_(
                col(ApiKey.id) == caller.key_id,
                col(ApiKey.resource)["id"].as_string() == caller.resource["id"],
            )
        )
    elif caller.sight.project_ids is not None:
        pinned = col(ApiKey.resource)["id"].as_string()
        within = select(Site.id).where(*caller.sight.sites())
        below = select(Environment.id).where(col(Environment.site_id).in_(within))
        found.append(
            or_(
                col(ApiKey.account_id) == caller.account_id,
                pinned.in_(sorted(caller.sight.project_ids)),
                pinned.in_(within),
                pinned.in_(below),
            )
        )
    return found


def _key(call: Call, session: Session, key_id: str, *, lock: bool = False) -> ApiKey:
    key = keys.api_key(session, key_id, visible_keys(call.caller), lock=lock)
    call.caller.require(SCOPE)
    return key


def refuse_others(caller: Caller, key: ApiKey) -> None:
    """Whoever rolls a personal key acts as its account from then on. Raises key.escalation."""
    if key.kind == "personal" and not caller.operator and key.account_id != caller.account_id:
        raise HeadwayError("key.escalation", "A personal key is rolled by its own account.")


def require_living(key: ApiKey) -> None:
    """Raises key.revoked."""
    if key.revoked_at is not None:
        raise HeadwayError("key.revoked", f"The key {key.id} is revoked, and stays so: make a new one.")


def require_good(key: ApiKey) -> None:
    """Of a key that is no good a new secret would be none either. Raises key.revoked or key.expired."""
    require_living(key)
    if key.expires_at is not None and key.expires_at <= utcnow():
        raise HeadwayError("key.expired", f"The key {key.id} has expired: let it live on first.")


def drafted(
    call: Call, session: Session, body: KeyCreate, scopes: frozenset[str], networks: list[str]
) -> tuple[ApiKey, str]:
    """A key that the caller may make, not in the session yet, and its secret. Raises what refuses it."""
    kind, team_id, account_id = owner(call.caller, session, body)
    pin = check_pin(call, session, body.resource, team_id)
    role = session.get_one(Membership, (team_id, account_id)).role if kind == "personal" else "admin"
    granted = grantable(scopes, role, body.scopes)
    refuse_escalation(call.caller, granted, pin, networks)
    if account_id is None or account_id != call.caller.account_id:
        refuse_whole_team(call.caller, pin)
    secret = keys.new_secret(kind, keys.MSK if body.family == "msk" else None)
    key = ApiKey(
        id=new_id("key"),
        team_id=team_id,
        account_id=account_id,
        kind=kind,
        name=body.name.strip(),
        prefix=keys.shown_prefix(secret),
        secret_sha256=keys.hashed(secret),
        scopes=sorted(granted),
        resource=pin,
        ip_allowlist=networks,
    )
    return key, secret


def _change(
    call: Call,
    session: Session,
    key: ApiKey,
    body: KeyUpdate,
    scopes: frozenset[str] | None,
    networks: list[str] | None,
) -> None:
    """What the body names. Raises key.escalation where the caller lacks what the key would get."""
    if body.name is not None:
        key.name = body.name.strip()
    if scopes is not None:
        member = session.get(Membership, (key.team_id, key.account_id)) if key.kind == "personal" else None
        granted = grantable(scopes, member.role if member else "admin", body.scopes)
        refuse_escalation(call.caller, granted, key.resource, key.ip_allowlist)
        key.scopes = sorted(granted)
    if body.expires_in is not None:
        life = duration(body.expires_in, param="expires_in", longest=YEAR, shortest=timedelta(seconds=1))
        key.expires_at = utcnow() + life
    if networks is not None:
        refuse_escalation(call.caller, frozenset(key.scopes), key.resource, networks)
        key.ip_allowlist = networks


def owner(caller: Caller, session: Session, body: KeyCreate) -> tuple[str, str, str | None]:
    """Kind, team and account of a new key. Other teams and other accounts are the operator's to name."""
    team_id = body.team_id or caller.team_id
    accounts.team(session, caller.sight if not caller.operator else type(caller.sight)(), team_id)
    if body.kind == "service":
        return "service", team_id, None
    account_id = body.account_id or (None if caller.operator and body.team_id else caller.account_id)
    if account_id is None:
        return "service", team_id, None
    if account_id != caller.account_id and not caller.operator:
        raise HeadwayError("key.escalation", "A key acts as its own account or as the team.", param="account_id")
    accounts.membership(session, team_id, account_id)
    return "personal", team_id, account_id


def expand(given: list[str] | str) -> frozenset[str]:
    """A preset by its name, or literal scopes. Raises request.invalid_parameter."""
    if isinstance(given, str):
        if given not in PRESETS:
            known = ", ".join(sorted(PRESETS))
            raise HeadwayError("request.invalid_parameter", f"There is no preset {given!r}: {known}.", param="scopes")
        return PRESETS[given]
    if not given:
        raise HeadwayError("request.invalid_parameter", "A key has at least one scope.", param="scopes")
    if presets := [name for name in given if name in PRESETS]:
        message = f"{presets[0]} is a preset: it stands alone, not in a list (--preset on the command line)."
        raise HeadwayError("request.invalid_parameter", message, param="scopes")
    if strange := unknown(given):
        raise HeadwayError("request.invalid_parameter", f"Unknown scopes: {', '.join(strange)}.", param="scopes")
    return frozenset(given)


def grantable(scopes: frozenset[str], role: str, given: list[str] | str | None) -> frozenset[str]:
    """A preset shrinks to what the role allows; what was asked for by name stays as it is."""
    return scopes & ROLES[role] if isinstance(given, str) else scopes


def refuse_escalation(caller: Caller, scopes: frozenset[str], pin: Json | None, networks: list[str]) -> None:
    """Raises key.escalation where the caller lacks a scope, is pinned to less, or is good from fewer addresses."""
    if caller.operator:
        return
    lacking = (implied(scopes) & SCOPES) - (caller.scopes & ROLES[caller.role])
    if lacking:
        raise HeadwayError("key.escalation", f"This key does not hold {', '.join(sorted(lacking))}.", param="scopes")
    own = caller.resource
    if own is not None and own["type"] != "team" and own != pin:
        raise HeadwayError("key.escalation", "This key is pinned: it cannot make a key for more.", param="resource")
    if caller.ip_allowlist and not (networks and all(_inside(one, caller.ip_allowlist) for one in networks)):
        raise HeadwayError("key.escalation", "This key is good from fewer addresses than that.", param="ip_allowlist")


def refuse_whole_team(caller: Caller, pin: Json | None) -> None:
    """A member who is limited to some projects makes no key that is not. Raises key.escalation."""
    if caller.sight.project_ids is not None and (pin is None or pin["type"] == "team"):
        raise HeadwayError("key.escalation", "This key is limited to some projects: pin the new one.", param="resource")


def _inside(network: str, allowed: tuple[str, ...]) -> bool:
    inner = ipaddress.ip_network(network)
    return any(inner.version == one.version and inner.subnet_of(one) for one in map(ipaddress.ip_network, allowed))  # type: ignore[arg-type]


def check_pin(call: Call, session: Session, pin: Pin | None, team_id: str) -> Json | None:
    """What the pin names has to be visible, and of the key's team."""
    if pin is None:
        return None
    found: str | None
    if pin.type == "team":
        found = accounts.team(session, call.sight, pin.id).id
    elif pin.type == "project":
        found = projects.project(session, call.sight, pin.id).team_id
    elif pin.type == "site":
        found = sites.site(session, call.sight, pin.id).team_id
    else:
        environment = session.get(Environment, pin.id)
        site_id = environment.site_id if environment else ""
        site: Site = environments.environment(session, call.sight, site_id, pin.id)[0] if environment else _none(pin)
        found = site.team_id
    if found != team_id:
        raise HeadwayError("request.invalid_parameter", "That resource is another team's.", param="resource.id")
    return {"type": pin.type, "id": pin.id}


def _none(pin: Pin) -> Site:
    raise HeadwayError("environment.not_found", f"There is no environment {pin.id}.", param="resource.id")


def check_networks(given: list[str]) -> list[str]:
    """Addresses and CIDR networks, in their normal form. Raises request.invalid_parameter."""
    found = []
    for text in given:
        try:
            found.append(str(ipaddress.ip_network(text, strict=False)))
        except ValueError:
            raise HeadwayError(
                "request.invalid_parameter", f"{text!r} is no CIDR network.", param="ip_allowlist"
            ) from None
    return found
