"""One piece of software that a build takes in, and its package URL."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

# As CycloneDX calls them, by the names that lock files use.
ALGORITHMS: Final = {"sha1": "SHA-1", "sha256": "SHA-256", "sha384": "SHA-384", "sha512": "SHA-512"}
_HEX: Final = {"SHA-1": 40, "SHA-256": 64, "SHA-384": 96, "SHA-512": 128}
_PYPI = re.compile(r"[-_.]+")
_PLAIN = re.compile(r"[^\x00-\x1f\x7f]{1,300}")


@dataclass(frozen=True, order=True)
class Component:
    """`kind` is the purl's type: npm | pypi | golang | cargo. `hashes` are (CycloneDX algorithm, hex), sorted.

    `optional`: not needed where it runs (a development dependency). `source` is the file that names it.
    """

    kind: str
    name: str
    version: str
    hashes: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    license: str | None = field(default=None, compare=False)
    optional: bool = field(default=False, compare=False)
    source: str = field(default="", compare=False)

    @property
    def purl(self) -> str:
        name = _PYPI.sub("-", self.name).lower() if self.kind == "pypi" else self.name
        path = "/".join(quote(part, safe="") for part in name.split("/"))
        return f"pkg:{self.kind}/{path}@{quote(self.version, safe='')}"


def component(
    kind: str,
    name: object,
    version: object,
    *,
    hashes: tuple[tuple[str, str], ...] = (),
    license: object = None,
    optional: bool = False,
    source: str = "",
) -> Component | None:
    """None for what is no name and version: lock files are written by strangers."""
    if not (
        isinstance(name, str) and isinstance(version, str) and _PLAIN.fullmatch(name) and _PLAIN.fullmatch(version)
    ):
        return None
    named = license if isinstance(license, str) and _PLAIN.fullmatch(license) else None
    return Component(kind, name, version, tuple(sorted(hashes)), named, optional, source)


def integrity(text: object) -> tuple[tuple[str, str], ...]:
    """Hashes of a Subresource Integrity text: `sha512-<base64> …`."""
    found = []
    for word in text.split() if isinstance(text, str) else ():
        algorithm, _, value = word.partition("-")
        try:
            digest = base64.b64decode(value, validate=True).hex()
        except (ValueError, binascii.Error):
            continue
        found += _hash(algorithm, digest)
    return tuple(found)


def plain_hash(text: object) -> tuple[tuple[str, str], ...]:
    """Hashes of `sha256:<hex>`."""
    algorithm, _, value = text.partition(":") if isinstance(text, str) else ("", "", "")
    return tuple(_hash(algorithm, value.lower()))


def _hash(algorithm: str, digest: str) -> list[tuple[str, str]]:
    name = ALGORITHMS.get(algorithm)
    return [(name, digest)] if name and re.fullmatch(r"[0-9a-f]+", digest) and len(digest) == _HEX[name] else []
