"""Domains of either dialect: which names are the platform's own."""

from __future__ import annotations

from urllib.parse import urlsplit

from api.parts import Parts


def own_names(parts: Parts) -> tuple[str, ...]:
    """Domains whose names are given out by the platform alone."""
    api = urlsplit(parts.api_url).hostname or ""
    found = (parts.addresses.domain, parts.domains.target, api)
    return tuple(dict.fromkeys(name for name in found if "." in name or name == "localhost"))
