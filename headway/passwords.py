"""What is kept of a preview's password: a salt and an scrypt hash, which the API makes and web servers compare with."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from typing import Any, Final

Json = dict[str, Any]
SHORTEST: Final = 8
LONGEST: Final = 200
_COST: Final = {"n": 1 << 14, "r": 8, "p": 1}
_MAX_COST: Final = 1 << 17


def make_lock(password: str) -> Json:
    """What is kept of a password."""
    salt = secrets.token_bytes(16)
    return {"v": 1, **_COST, "salt": salt.hex(), "hash": _hash(password.encode(), salt, _COST).hex()}


def _hash(password: bytes, salt: bytes, cost: Json) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=cost["n"], r=cost["r"], p=cost["p"], dklen=32, maxmem=1 << 28)


@dataclass(frozen=True)
class Lock:
    salt: bytes
    hash: bytes
    cost: Json

    @classmethod
    def read(cls, raw: bytes) -> Lock:
        """Raises ValueError on anything that `make_lock` does not make."""
        try:
            found = json.loads(raw)
            cost = {name: int(found[name]) for name in _COST}
            lock = cls(bytes.fromhex(found["salt"]), bytes.fromhex(found["hash"]), cost)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError("this is no lock") from error
        if found.get("v") != 1 or len(lock.hash) != 32 or cost["n"] > _MAX_COST:
            raise ValueError("this is no lock")
        return lock

    def opens(self, password: bytes) -> bool:
        """Takes some 50 ms, whatever the password is."""
        return hmac.compare_digest(_hash(password[: 4 * LONGEST], self.salt, self.cost), self.hash)
