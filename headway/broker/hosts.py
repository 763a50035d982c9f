"""What a host says of itself, and what it is asked to mend."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from headway.broker.wire import Wire


class Serving(Wire):
    """What a host serves: the live number of each environment that lies there, 0 for nothing. All of it at once."""

    live: dict[str, int] = Field(max_length=100_000)


class Leftovers(Wire):
    """Environments that have no business on a host any more."""

    environments: list[str]


class Leads(Wire):
    """By environment, the digest of which names lead to it on a host, and how (`leads_digest`)."""

    leads: dict[str, str] = Field(max_length=100_000)


class Misled(Wire):
    """Environments whose names are otherwise by now."""

    environments: list[str]


class Mounts(Wire):
    """Environments whose mounts lie on a host."""

    environments: list[str] = Field(max_length=100_000)


class Deleted(Wire):
    """Which of them are deleted, and for how many seconds. Nothing is said of what no row knows."""

    environments: dict[str, float]


def leads_digest(names: Mapping[str, str], lock: str) -> str:
    """`names`: of each the origin that it redirects to, empty where it is served. `lock` as in Hostnames."""
    text = json.dumps([sorted(names.items()), lock], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Offer(Wire):
    """A host has a whole copy of a manifest, of that size in bytes; of a pack it is not asked (0)."""

    size: int = Field(default=0, ge=0, le=1 << 30)


class MendSpec(Wire):
    """A damaged object, and how to put it right: `put_url` takes exactly the bytes of that sha256, and only in the
    place of the damaged ones (`put_headers` are to be sent as they are). `get_url` reads what is there; None: nothing.

    `pieces` are `(sha256, offset, size)` of a pack, by offset; a manifest has none.
    """

    finding_id: str
    object: Literal["pack", "manifest"]
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0)
    pieces: list[tuple[str, int, int]] = Field(default=[])
    get_url: str | None
    put_url: str
    put_headers: dict[str, str]


class HostHello(Wire):
    """A host that starts: its X25519 public key as base64."""

    public_key: str = Field(max_length=100)
    labels: list[str] = Field(default=[], max_length=50)


class Known(Wire):
    host_id: str
    labels: list[str]


class DriftNote(Wire):
    """Something that a host found otherwise than it had left it. Times in Unix seconds; `mended_at` None: not yet."""

    id: str = Field(pattern=r"^drift_[0-9A-Z]{26}$")
    env_id: str
    seq: int = Field(ge=0)
    kind: Literal["instance", "current", "tree", "contents", "release"]
    what: str = Field(max_length=500)
    found_at: float
    mended_at: float | None = None


class Drifts(Wire):
    """Told again, a finding is the same one: it may have been mended meanwhile."""

    drifts: list[DriftNote] = Field(max_length=100)


class Noted(Wire):
    noted: int
