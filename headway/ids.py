"""Ids are a prefix and a ULID, minted in the API (contract section 1, Identifiers)."""

from __future__ import annotations

import re
import secrets
from typing import Final

from ulid import ULID

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID: Final = re.compile(r"[a-z]+_[0-9A-Za-z]{4,32}")


def new_id(prefix: str) -> str:
    """`new_id("site")` → `site_01KV…`: 26 upper-case Crockford characters after the prefix."""
    return f"{prefix}_{ULID()}"


def is_id(text: str, prefix: str | None = None) -> bool:
    """Whether `text` has the shape of an id (of that prefix); says nothing about existence."""
    return ID.fullmatch(text) is not None and (prefix is None or text.startswith(prefix + "_"))


def secret_digits() -> str:
    """43 base62 characters from 32 random bytes: what follows the family in a key."""
    number = int.from_bytes(secrets.token_bytes(32), "big")
    digits = ""
    for _ in range(43):
        number, digit = divmod(number, 62)
        digits = ALPHABET[digit] + digits
    return digits
