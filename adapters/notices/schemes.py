"""Which addresses of Apprise may be used: those of services by TLS, and of hosts that the operator lets be plain.

Nothing that acts on the machine itself is among them, and no parameter that reads a file or trusts everybody.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, urlsplit

from adapters.egress.policy import is_literal, is_public, normal
from headway.errors import HeadwayError

MAX_URL: Final = 2000
# The host's place in these holds a token: their servers are their vendors'.
VENDORS: Final = frozenset(
    (
        "discord",
        "feishu",
        "flock",
        "gchat",
        "guilded",
        "lark",
        "msteams",
        "opsgenie",
        "pagerduty",
        "pover",
        "slack",
        "tgram",
        "workflow",
        "workflows",
        "wxteams",
        "zulip",
    )
)
# By TLS, and the same without it.
SERVERS: Final = {
    "gotifys": "gotify",
    "mailtos": "mailto",
    "matrixs": "matrix",
    "mmosts": "mmost",
    "ntfys": "ntfy",
    "rockets": "rocket",
}
_PLAIN: Final = {plain: secure for secure, plain in SERVERS.items()}
ALLOWED: Final = tuple(sorted({*VENDORS, *SERVERS, *_PLAIN}))
_REFUSED: Final = frozenset(
    ("attach", "config", "e2ee", "mode", "pgp", "pgpkey", "redirect", "smime", "template", "verify", "wkd")
)


def check(url: str, private_ok: frozenset[str]) -> str:
    """`url` itself. Raises notification.url_refused. Whether it says enough, only Apprise knows."""
    if len(url) > MAX_URL or any(ord(letter) <= 32 or ord(letter) > 126 for letter in url):
        raise _refused(f"A URL has at most {MAX_URL} printable ASCII characters.")
    try:
        parts = urlsplit(url)
        host = normal(parts.hostname or "")
        query = {name.lstrip("+-:").lower(): value for name, value in parse_qsl(parts.query, keep_blank_values=True)}
    except ValueError:
        raise _refused("This is not a URL.") from None
    scheme = parts.scheme
    if scheme not in ALLOWED:
        raise _refused(f"{scheme[:20]!r} is none of the services that may be used: {', '.join(ALLOWED)}.")
    if scheme in VENDORS:
        _check_words(query, frozenset())
        return url
    servers = {normal(one) for one in (host, query.get("smtp", "")) if one}
    private = frozenset(servers & private_ok)
    _check_words(query, private)
    if scheme in _PLAIN and not (servers and servers <= private_ok):
        raise _refused(f"{scheme}:// is not encrypted: use {_PLAIN[scheme]}://.")
    for one in servers - private:
        if one == "localhost" or (is_literal(one) and not is_public(one)):
            raise _refused(f"{one} is not a public address.")
    return url


def shown(url: str) -> str:
    """What may be seen of it: the service. Each other part may be a token."""
    return f"{urlsplit(url).scheme}://…"


def _check_words(query: dict[str, str], private: frozenset[str]) -> None:
    # How a connection is secured is the operator's to say, for hosts of his own.
    for name in _REFUSED - ({"mode", "verify"} if private else set()):
        if name in query:
            raise _refused(f"The parameter {name} may not be used.")


def _refused(why: str) -> HeadwayError:
    return HeadwayError("notification.url_refused", why, param="url")
