"""How a static artifact wants to be served: the part of the manifest that comes from `[static]` in headway.toml."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from headway.errors import HeadwayError

MAX_RULES: Final = 500
MAX_VALUES: Final = 50
MAX_TEXT: Final = 4096
STATUSES: Final = (301, 302, 307, 308)

# RFC 9110, section 5.6.2: a field name is a token.
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# What frames the message or belongs to the server; a site that sets them could desynchronise a connection.
_RESERVED = frozenset(
    (
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
        *("content-encoding", "content-length", "content-range", "host", "proxy-authenticate"),
        *("date", "etag", "last-modified", "server"),
    )
)

Fail = Callable[[str, str], HeadwayError]


@dataclass(frozen=True)
class HeaderRule:
    """Headers for every path that `pattern` matches (`*` stands for any characters)."""

    pattern: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class Redirect:
    """`source` may end in `*`; `to` is a path or an http(s) address."""

    source: str
    to: str
    status: int = 301


@dataclass(frozen=True)
class StaticRules:
    """`not_found`: path of the page for 404; `spa`: unknown paths get index.html with 200."""

    not_found: str | None = None
    spa: bool = False
    headers: tuple[HeaderRule, ...] = ()
    redirects: tuple[Redirect, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.not_found or self.spa or self.headers or self.redirects)

    def as_dict(self) -> dict[str, Any]:
        """The shape in the manifest, which `parse_rules` reads back."""
        return {
            "not_found": self.not_found,
            "spa": self.spa,
            "headers": [{"for": rule.pattern, "values": dict(rule.values)} for rule in self.headers],
            "redirects": [{"from": rule.source, "to": rule.to, "status": rule.status} for rule in self.redirects],
        }


def parse_rules(raw: object, fail: Fail) -> StaticRules:
    """Read `{not_found?, spa?, headers?, redirects?}`; anything else raises `fail(key, why)`."""
    table = _table(raw, "static", {"not_found", "spa", "headers", "redirects"}, fail)
    spa = table.get("spa", False)
    if not isinstance(spa, bool):
        raise fail("static.spa", "must be true or false")
    page = table.get("not_found")
    return StaticRules(
        not_found=None if page is None else _page(page, fail),
        spa=spa,
        headers=tuple(_header_rule(i, one, fail) for i, one in enumerate(_list(table, "headers", fail))),
        redirects=tuple(_redirect(i, one, fail) for i, one in enumerate(_list(table, "redirects", fail))),
    )


def _header_rule(index: int, raw: object, fail: Fail) -> HeaderRule:
    key = f"static.headers[{index}]"
    table = _table(raw, key, {"for", "values"}, fail)
    pattern = _path(table.get("for"), f"{key}.for", fail)
    values = table.get("values")
    if not isinstance(values, dict) or not 0 < len(values) <= MAX_VALUES:
        raise fail(f"{key}.values", f"must be a table of 1 to {MAX_VALUES} headers")
    for name, value in values.items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise fail(f"{key}.values", f"{name!r} is not a header name")
        if name.lower() in _RESERVED:
            raise fail(f"{key}.values.{name}", "is set by the server")
        _text(value, f"{key}.values.{name}", fail)
    if len({name.lower() for name in values}) != len(values):
        raise fail(f"{key}.values", "names a header twice")
    return HeaderRule(pattern, dict(values))


def _redirect(index: int, raw: object, fail: Fail) -> Redirect:
    key = f"static.redirects[{index}]"
    table = _table(raw, key, {"from", "to", "status"}, fail)
    source = _path(table.get("from"), f"{key}.from", fail)
    if "*" in source[:-1]:
        raise fail(f"{key}.from", "may have one * and only at its end")
    to = _text(table.get("to"), f"{key}.to", fail)
    if not to.startswith(("/", "https://", "http://")) or to.startswith(("//", "/\\")) or " " in to:
        raise fail(f"{key}.to", "must be a path or an http(s) address")
    status = table.get("status", 301)
    if isinstance(status, bool) or status not in STATUSES:
        raise fail(f"{key}.status", "must be one of " + ", ".join(map(str, STATUSES)))
    return Redirect(source, to, status)


def _page(raw: object, fail: Fail) -> str:
    page = _text(raw, "static.not_found", fail).removeprefix("/")
    if not page or any(part in ("", ".", "..") for part in page.split("/")):
        raise fail("static.not_found", "must be the path of a file in the output")
    return page


def _path(raw: object, key: str, fail: Fail) -> str:
    path = _text(raw, key, fail)
    if not path.startswith("/") or path.startswith("//"):
        raise fail(key, "must be a path that begins with /")
    return path


def _text(raw: object, key: str, fail: Fail) -> str:
    if not isinstance(raw, str) or not raw:
        raise fail(key, "must be a text")
    if len(raw) > MAX_TEXT or _CONTROL.search(raw) or not raw.isascii():
        raise fail(key, f"must be ASCII without control characters, at most {MAX_TEXT} characters")
    return raw


def _table(raw: object, key: str, known: set[str], fail: Fail) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise fail(key, "must be a table")
    for name in raw:
        if name not in known:
            raise fail(f"{key}.{name}", "is not a known key")
    return raw


def _list(table: dict[str, Any], name: str, fail: Fail) -> list[Any]:
    raw = table.get(name, [])
    if not isinstance(raw, list) or len(raw) > MAX_RULES:
        raise fail(f"static.{name}", f"must be a list of at most {MAX_RULES} tables")
    return raw
