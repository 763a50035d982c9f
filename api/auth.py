"""Who calls, and what they may do: role ∩ scopes ∩ resource constraint (contract section 3)."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import anyio
from sqlmodel import Session

from api.scopes import ROLES, SCOPES, implied
from headway.errors import HeadwayError
from store.keys import FAMILIES, hashed, key_by_secret, note_use
from store.models import ApiKey, Environment, Membership, utcnow
from store.projects import projects_of_member
from store.session import Store
from store.sight import Sight
from store.workspaces import projects_of_workspace

FRESH: Final = 1.0
USE_NOTED_EVERY: Final = 60.0


@dataclass(frozen=True)
class Caller:
    """One credential, resolved. `scopes` holds everything that they imply; `literal` what the key was minted with."""

    key_id: str
    key_name: str
    kind: str
    team_id: str
    account_id: str | None
    role: str
    literal: frozenset[str]
    scopes: frozenset[str]
    sight: Sight
    ip_allowlist: tuple[str, ...]
    expires_at: datetime | None
    resource: dict[str, Any] | None = None

    @property
    def operator(self) -> bool:
        return self.kind == "operator"

    @property
    def actor(self) -> dict[str, Any]:
        return {"type": "api_key", "id": self.key_id, "label": self.key_name}

    @property
    def principal(self) -> str:
        """Whose idempotency keys these are: the account's or the team's, within the team."""
        return f"{self.team_id}/{self.account_id}" if self.account_id else self.team_id

    def may(self, scope: str) -> bool:
        """Whether `require` lets it pass."""
        return scope in self.scopes and (self.operator or scope in ROLES[self.role])

    def require(self, scope: str) -> None:
        """Raises scope.insufficient or role.insufficient: the row is visible, the right to do this is missing."""
        if scope not in self.scopes:
            raise HeadwayError("scope.insufficient", f"This key lacks the scope {scope}.", param="scope")
        if scope not in ROLES[self.role] and not self.operator:
            raise HeadwayError("role.insufficient", f"The role {self.role} does not allow {scope}.", param="scope")

    def require_change(self, scope: str, *, site_id: str | None = None, env_id: str | None = None) -> None:
        """As `require`, and the key is not pinned to something below what is to be changed."""
        self.require(scope)
        if not self.sight.covers(site_id=site_id, env_id=env_id):
            raise HeadwayError(
                "scope.insufficient", f"This key is pinned to a part of that: {scope} ends there.", param="scope"
            )


@dataclass
class Authenticator:
    """Bearer → caller, by SHA-256, with what was found kept for a second. For one event loop."""

    store: Store
    clock: Callable[[], float] = time.monotonic
    _known: dict[str, tuple[float, Caller]] = field(default_factory=dict)
    _used: dict[str, float] = field(default_factory=dict)
    _unwritten: set[str] = field(default_factory=set)

    async def caller(self, authorization: str | None, address: str | None) -> Caller:
        """Raises auth.missing, auth.invalid_key, auth.expired_key, auth.revoked_key or key.ip_not_allowed."""
        sha256 = hashed(bearer(authorization))
        now = self.clock()
        known = self._known.get(sha256)
        if known is None or now - known[0] > FRESH:
            self._known.pop(sha256, None)
            found = await anyio.to_thread.run_sync(self._look_up, sha256)
            if len(self._known) > 10_000:
                self._known.clear()
            known = self._known[sha256] = (now, found)
        caller = known[1]
        if caller.expires_at is not None and caller.expires_at <= utcnow():
            raise HeadwayError("auth.expired_key", "This key has expired.")
        if caller.ip_allowlist and not _within(address, caller.ip_allowlist):
            raise HeadwayError("key.ip_not_allowed", "This key may not be used from your address.")
        if now - self._used.get(caller.key_id, -USE_NOTED_EVERY) >= USE_NOTED_EVERY:
            self._used[caller.key_id] = now
            self._unwritten.add(caller.key_id)
        return caller

    def forget(self) -> None:
        """Keys, roles or constraints have changed here: what was known no longer counts."""
        self._known.clear()

    async def write_uses(self) -> None:
        """Put `last_used_at` into the rows, for all keys at once: outside of any request."""
        if self._unwritten:
            keys, self._unwritten = self._unwritten, set()
            await anyio.to_thread.run_sync(self.store.in_write, lambda session: note_use(session, keys, utcnow()))

    def _look_up(self, sha256: str) -> Caller:
        with self.store.read() as session:
            key = key_by_secret(session, sha256, utcnow())
            if key is None:
                raise HeadwayError("auth.invalid_key", "There is no such key.")
            if key.revoked_at is not None:
                raise HeadwayError("auth.revoked_key", "This key has been revoked.")
            return _resolve(session, key)


def bearer(authorization: str | None) -> str:
    scheme, _, token = (authorization or "").partition(" ")
    token = token.strip()
    if not authorization or scheme.lower() != "bearer" or not token:
        raise HeadwayError("auth.missing", "Send Authorization: Bearer <key>.")
    if not token.startswith(FAMILIES) or len(token) > 200:
        raise HeadwayError("auth.invalid_key", "There is no such key.")
    return token


def _resolve(session: Session, key: ApiKey) -> Caller:
    role = "admin"
    project_ids = None
    if key.kind == "personal":
        member = session.get(Membership, (key.team_id, key.account_id))
        if member is None:
            raise HeadwayError("auth.revoked_key", "The owner of this key is no longer in its team.")
        role = member.role
        project_ids = projects_of_member(session, key.team_id, key.account_id or "")
    everything = key.kind == "operator"
    return Caller(
        key_id=key.id,
        key_name=key.name,
        kind=key.kind,
        team_id=key.team_id,
        account_id=key.account_id if key.kind != "service" else None,
        role="owner" if everything else role,
        literal=frozenset(key.scopes),
        scopes=SCOPES if everything else implied(key.scopes),
        sight=Sight() if everything else _sight(session, key, role, project_ids),
        ip_allowlist=tuple(key.ip_allowlist),
        expires_at=key.expires_at,
        resource=key.resource,
    )


def _sight(session: Session, key: ApiKey, role: str, project_ids: frozenset[str] | None) -> Sight:
    pin = key.resource or {"type": "team"}
    site_id = env_id = None
    if pin["type"] == "project":
        own = frozenset((pin["id"],))
        project_ids = own if project_ids is None else own & project_ids
    elif pin["type"] == "workspace":
        project_ids = projects_of_workspace(session, key.team_id, pin["id"])
    elif pin["type"] == "site":
        site_id = pin["id"]
    elif pin["type"] == "environment":
        environment = session.get(Environment, pin["id"])
        site_id, env_id = (environment.site_id if environment else "none"), pin["id"]
    nothing = "sites:read" not in ROLES[role]
    return Sight(key.team_id, project_ids, site_id, env_id, nothing=nothing)


def _within(address: str | None, networks: tuple[str, ...]) -> bool:
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip in ipaddress.ip_network(network) for network in networks)
