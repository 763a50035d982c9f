"""Ids are a prefix and a ULID, minted in the API (contract section 1, Identifiers)."""

from __future__ import annotations

import re

from ulid import ULID

ID = re.compile(r"^[a-z]+_[0-9A-Za-z]{4,32}$")


def new_id(prefix: str) -> str:
    """`new_id("site")` → `site_01KV…`: 26 upper-case Crockford characters after the prefix."""
    return f"{prefix}_{ULID()}"


def is_id(text: str, prefix: str | None = None) -> bool:
    """Whether `text` has the shape of an id (of that prefix); says nothing about existence."""
    return bool(ID.match(text)) and (prefix is None or text.startswith(prefix + "_"))
