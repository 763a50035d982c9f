"""What headers and redirects a static site asks for, compiled once per release and answered per request.

Redirects apply before files, the first that matches wins: `from` is an exact path, or a prefix that ends in `*`;
`:splat` in `to` stands for what the star matched. Headers add up in order, a later rule replaces an earlier one's
value; in `for` each `*` stands for any characters. Both see the decoded path with `//`, `.` and `..` resolved, as
the files do.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, unquote

from adapters.artifact.rules import HeaderRule, Redirect, StaticRules, parse_rules
from headway.errors import HeadwayError

_SPLAT: Final = ":splat"
# What RFC 3986, section 3.3, allows in a path.
_IN_PATH: Final = "/-._~!$&'()*+,;=:@"


@dataclass(frozen=True)
class Answer:
    """`status` 200: serve the file, with these headers; else a redirect to `location`."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    location: str = ""


SERVE: Final = Answer(200)


class Rules:
    """The compiled rules of one release."""

    def __init__(self, headers: Iterable[HeaderRule], redirects: Iterable[Redirect]) -> None:
        self._headers = [(Glob(one.pattern), dict(one.values)) for one in headers]
        self._exact: dict[str, tuple[int, Redirect]] = {}
        self._prefixes: list[tuple[int, Redirect]] = []
        for index, one in enumerate(redirects):
            if one.source.endswith("*"):
                self._prefixes.append((index, one))
            else:
                self._exact.setdefault(one.source, (index, one))

    def answer(self, target: str) -> Answer:
        """The answer to a request target (`/path?query`, still percent-encoded)."""
        raw, mark, query = target.partition("?")
        path = clean_path(unquote(raw, errors="surrogateescape"))
        redirect = self._redirect(path)
        if redirect is not None:
            location = _location(redirect, path, mark + query)
            # A rule that leads to the very address it was asked for would send the browser round and round.
            if location not in (target, raw):
                return Answer(redirect.status, location=location)
        values: dict[str, tuple[str, str]] = {}
        for pattern, extra in self._headers:
            if pattern.matches(path):
                values.update((name.lower(), (name, value)) for name, value in extra.items())
        return Answer(200, tuple(values.values())) if values else SERVE

    def _redirect(self, path: str) -> Redirect | None:
        index, found = self._exact.get(path, (None, None))
        for other, one in self._prefixes:
            if index is not None and other > index:
                break
            if path.startswith(one.source[:-1]):
                return one
        return found


class Glob:
    """A pattern in which each `*` stands for any characters. Linear: visitors' paths meet tenants' patterns."""

    def __init__(self, pattern: str) -> None:
        self._first, *rest = pattern.split("*")
        self._open = bool(rest)
        self._last = rest.pop() if rest else ""
        self._middle = [part for part in rest if part]

    def matches(self, text: str) -> bool:
        if not self._open:
            return text == self._first
        end = len(text) - len(self._last)
        at = len(self._first)
        if not text.startswith(self._first) or not text.endswith(self._last) or end < at:
            return False
        for part in self._middle:
            found = text.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True


def rules_document(static: StaticRules) -> dict[str, Any] | None:
    """The content of a release's `rules` file, or None where it needs none."""
    if not static.headers and not static.redirects:
        return None
    known = static.as_dict()
    return {"headers": known["headers"], "redirects": known["redirects"]}


def read_rules(document: Mapping[str, Any]) -> Rules:
    """Raises roll.verify_failed on anything that the manifest would not allow either."""
    static = parse_rules(dict(document), lambda key, why: HeadwayError("roll.verify_failed", f"{key} {why}."))
    return Rules(static.headers, static.redirects)


def clean_path(path: str) -> str:
    """The path as the file server resolves it; a trailing slash stays."""
    cleaned = posixpath.normpath("/" + path.lstrip("/"))
    return cleaned + "/" if path.endswith("/") and cleaned != "/" else cleaned


def _location(rule: Redirect, path: str, query: str) -> str:
    splat = quote(path[len(rule.source) - 1 :], safe=_IN_PATH, errors="surrogateescape") if "*" in rule.source else ""
    if rule.to.startswith("/"):
        # `//host` and `/\host` leave the site in a browser: a visitor's path must not choose the host.
        location = "/" + rule.to.replace(_SPLAT, splat).lstrip("/\\")
    else:
        scheme, _, rest = rule.to.partition("://")
        host, slash, tail = rest.partition("/")
        if _SPLAT in host:
            host, slash, tail = host.replace(_SPLAT, ""), "/", _SPLAT + slash + tail
            splat = splat.lstrip("/")
        location = f"{scheme}://{host}{slash}{tail.replace(_SPLAT, splat)}"
    if query and query.isascii() and "?" not in location:
        body, mark, fragment = location.partition("#")
        location = body + query + mark + fragment
    return location
