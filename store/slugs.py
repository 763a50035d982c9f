"""Slugs and host labels: from what people and branches are called to what DNS takes."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Final

LABEL: Final = 63
SLUG: Final = 40
_PLATFORM = (
    *("admin", "api", "app", "autoconfig", "autodiscover", "broker", "caddy", "console", "dashboard", "ftp", "git"),
    *("headway", "hostmaster", "imap", "internal", "localhost", "mail", "managed", "ns", "ns1", "ns2", "pop"),
    *("postmaster", "s3", "smtp", "ssh", "temporal", "webmail", "wpad", "www"),
)
RESERVED: Final = frozenset(_PLATFORM)


def short_hash(*parts: str, length: int = 6) -> str:
    """A few hex digits of the parts: stable for the same parts."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:length]


def slugify(text: str, *, limit: int = SLUG) -> str:
    """Lower-case letters, digits and single dashes; empty if nothing of the text is left.

    Runs of dashes shrink to one, so no slug can begin like a punycode label (`xn--`).
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:limit].rstrip("-")


def branch_slug(branch: str) -> str:
    """`feature/checkout` → `feature-checkout`; what loses characters on the way keeps a hash of the whole."""
    slug = slugify(branch)
    plain = re.sub(r"[^A-Za-z0-9]+", "-", branch).strip("-").lower()
    if slug and plain == slug and branch.isascii():
        return slug
    return fitted(slug or "branch", short_hash(branch), limit=SLUG)


def fitted(base: str, suffix: str, *, limit: int = LABEL) -> str:
    """`base-suffix`, the base cut so that the whole fits."""
    return f"{base[: limit - len(suffix) - 1].rstrip('-')}-{suffix}"


_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")


def is_branch_name(name: str) -> bool:
    """What git's own check-ref-format takes for a branch, at most 250 bytes."""
    parts = name.split("/")
    return not (
        not name
        or len(name.encode("utf-8", "surrogatepass")) > 250
        or _FORBIDDEN.search(name)
        or name.startswith(("-", "/"))
        or name.endswith(("/", "."))
        or name in ("@", "HEAD")
        or any(part.startswith(".") or part.endswith(".lock") for part in parts)
    )
