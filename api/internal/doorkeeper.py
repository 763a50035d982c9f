"""Who asks the broker: a role's credential, or a host's own."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from headway.errors import HeadwayError
from store.hosts import host_by_credential
from store.session import Store


@dataclass(frozen=True)
class Asker:
    """Who asks. `host_id` is set for hosts: they speak for themselves alone."""

    role: str
    host_id: str = ""

    def must_be(self, host_id: str) -> None:
        if self.host_id != host_id:
            raise HeadwayError("role.insufficient", f"This credential is that of the host {self.host_id}.")


class Doorkeeper:
    """Whose credential it is: a role's, compared in constant time with every one of them, or a host's own.

    `own_host` is the machine beside the API, which has the role's.
    """

    def __init__(self, tokens: Mapping[str, str], store: Store, own_host: str) -> None:
        self._tokens = {role: token.encode() for role, token in tokens.items() if token}
        self._store = store
        self._own_host = own_host

    def admit(self, authorization: str | None, role: str | None) -> Asker:
        """`role` is the one that may ask (None: any). Raises auth.missing, auth.invalid_key, role.insufficient."""
        asker = self._asker(authorization)
        if role is not None and asker.role != role:
            raise HeadwayError("role.insufficient", f"The role {asker.role} may not ask that.")
        return asker

    def _asker(self, authorization: str | None) -> Asker:
        given, found = _bearer(authorization), None
        for role, token in self._tokens.items():
            if hmac.compare_digest(token, given.encode("utf-8", "surrogateescape")):
                found = role
        if found is not None:
            return Asker(found, self._own_host if found == "host" else "")
        with self._store.read() as session:
            host_id = host_by_credential(session, given)
        if host_id is None:
            raise HeadwayError("auth.invalid_key", "There is no such credential.")
        return Asker("host", host_id)


def _bearer(authorization: str | None) -> str:
    scheme, _, given = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        raise HeadwayError("auth.missing", "Send Authorization: Bearer <credential>.")
    return given.strip()
