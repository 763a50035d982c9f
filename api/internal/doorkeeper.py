"""Who asks the broker: a role's credential, or a host's or a builder's own."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from headway.broker import HOLDER
from headway.errors import HeadwayError
from store.builders import OWN, builder_by_credential
from store.hosts import host_by_credential
from store.keys import hashed
from store.leases import Holder
from store.models import utcnow
from store.session import Store

MIN_HOLDER = 32


@dataclass(frozen=True)
class Asker:
    """Who asks. `host_id` is set for hosts: they speak for themselves alone. `holding` for builders."""

    role: str
    host_id: str = ""
    holding: Holder | None = None

    def must_be(self, host_id: str) -> None:
        if self.host_id != host_id:
            raise HeadwayError("role.insufficient", f"This credential is that of the host {self.host_id}.")

    def holder(self) -> Holder:
        """Raises request.missing_parameter where a builder does not show what its process alone knows."""
        if self.holding is None:
            message = f"Send {HOLDER}: at least {MIN_HOLDER} characters that this process alone knows."
            raise HeadwayError("request.missing_parameter", message, param=HOLDER)
        return self.holding


@dataclass(frozen=True)
class Shown:
    """What a request shows of who sends it: two of its headers."""

    authorization: str | None
    holder: str | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Shown:
        return cls(headers.get("authorization"), headers.get(HOLDER))


@dataclass(frozen=True)
class Doorkeeper:
    """Whose credential it is: a role's, compared in constant time with every one of them, or a machine's own.

    `own_host` is the machine beside the API, which has the role's.
    """

    tokens: Mapping[str, str]
    store: Store
    own_host: str
    since: datetime = field(default_factory=utcnow)

    def admit(self, shown: Shown, role: str | None) -> Asker:
        """`role` is the one that may ask (None: any). Raises auth.missing, auth.invalid_key, role.insufficient."""
        asker = self._asker(shown)
        if role is not None and asker.role != role:
            raise HeadwayError("role.insufficient", f"The role {asker.role} may not ask that.")
        return asker

    def _asker(self, shown: Shown) -> Asker:
        given, found = _bearer(shown.authorization), None
        for role, token in self.tokens.items():
            if token and hmac.compare_digest(token.encode(), given.encode("utf-8", "surrogateescape")):
                found = role
        if found == "builder":
            return self._builder(OWN, shown)
        if found is not None:
            return Asker(found, self.own_host if found == "host" else "")
        with self.store.read() as session:
            host_id, builder_id = host_by_credential(session, given), builder_by_credential(session, given)
        if builder_id is not None:
            return self._builder(builder_id, shown)
        if host_id is None:
            raise HeadwayError("auth.invalid_key", "There is no such credential.")
        return Asker("host", host_id)

    def _builder(self, builder_id: str, shown: Shown) -> Asker:
        told = shown.holder or ""
        holder = Holder(builder_id, hashed(told), self.since) if len(told) >= MIN_HOLDER else None
        return Asker("builder", holding=holder)


def _bearer(authorization: str | None) -> str:
    scheme, _, given = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        raise HeadwayError("auth.missing", "Send Authorization: Bearer <credential>.")
    return given.strip()
