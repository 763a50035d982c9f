"""A password in front of an environment: who may pass, and for how long a visitor is remembered.

A browser is asked by Basic authentication, once: from then on a cookie lets it pass, so that a page's own requests may
carry an Authorization of their own. The cookie is signed with the password's hash: another password ends every visit.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import time
from collections import OrderedDict
from typing import Final

from headway.passwords import Lock

COOKIE: Final = "headway_preview"
SECONDS: Final = 12 * 3600
KEPT: Final = 1_000


def password_in(authorization: str) -> bytes | None:
    """The password of Basic credentials, whoever is named."""
    kind, _, given = authorization.partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        _, colon, password = base64.b64decode(given.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return password if colon else None


class Visits:
    """Who has passed: cookies, and credentials that were right a moment ago. Not for several threads."""

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()

    def cookie(self, lock: Lock, host: str) -> str:
        until = int(time.time()) + SECONDS
        return f"{until}.{_sign(lock, host, until)}"

    def knows_cookie(self, lock: Lock, host: str, header: str) -> bool:
        """Compares in constant time, and looks at the time last."""
        for part in header.split(";"):
            name, _, value = part.strip().partition("=")
            if name == COOKIE:
                until, _, given = value.partition(".")
                seconds = int(until) if until.isascii() and until.isdecimal() and len(until) < 12 else 0
                if hmac.compare_digest(_sign(lock, host, seconds).encode(), given.encode()) and seconds > time.time():
                    return True
        return False

    def knows_password(self, lock: Lock, password: bytes) -> bool:
        return self._name(lock, password) in self._right

    def keep_password(self, lock: Lock, password: bytes) -> None:
        """So that a client without cookies does not cost a hash for each request."""
        self._right[self._name(lock, password)] = None
        if len(self._right) > KEPT:
            self._right.popitem(last=False)

    def _name(self, lock: Lock, password: bytes) -> bytes:
        return hmac.new(self._key, lock.hash + password, hashlib.sha256).digest()


def _sign(lock: Lock, host: str, until: int) -> str:
    return hmac.new(lock.hash, f"{host} {until}".encode(), hashlib.sha256).hexdigest()
