"""What commands print: results on stdout (one JSON document with --json), all else on stderr."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

import click

from headway.errors import CODES, HeadwayError

# Lines of strangers' builds and names of other people's things end up on a terminal: no escapes, no direction tricks.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?")
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_OBEYED = re.compile(r"[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_EXIT_OF_TYPE = {
    "authentication": 3,
    "permission": 3,
    "not_found": 4,
    "conflict": 5,
    "rate_limit": 6,
    "quota_exceeded": 6,
    "invalid_request": 2,
}
SERVER_FAULT = 7
# Where the table's advice is for those who write HTTP.
_ADVICE = {
    "auth.missing": "Keep one with `headway login`, or set HEADWAY_TOKEN.",
    "service.unavailable": "Check the address, and that the server runs; then try again.",
    "internal.error": "Try again; then look for the request id in the server's logs.",
}


def clean(text: object) -> str:
    """One line that is safe on a terminal."""
    return _CONTROLS.sub("", _ESCAPES.sub("", str(text)).replace("\t", "    "))


def for_reader(text: str, to: IO[str]) -> str:
    """Somebody's own text: for a terminal what is safe there, line by line; for a file or a program as it is."""
    return "\n".join(map(clean, text.split("\n"))) if to.isatty() else text


def exit_code(error: HeadwayError) -> int:
    """0 ok; 1 job failed; 2 usage; 3 auth; 4 not found; 5 conflict; 6 rate or quota; 7 server; 124 wait timeout.

    A job that is held exits with 3 too: somebody else has to let it.
    """
    return _EXIT_OF_TYPE.get(error.type, SERVER_FAULT)


def print_json(document: object) -> None:
    click.echo(printable_json(json.dumps(document, ensure_ascii=False, indent=2)))


def printable_json(text: str) -> str:
    """JSON lets C1 controls and marks of direction stand as they are; a terminal would obey them."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def last_answer(tries: Sequence[Mapping[str, Any]]) -> str:
    """What the last of these `{at, status, error, ms}` came to."""
    last = tries[-1] if tries else {}
    return str(last.get("error") or last.get("status") or "")


def say(text: str) -> None:
    """A word to the person, never part of the result."""
    click.echo(text, err=True)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as their widest cell."""
    table = [[clean("-" if cell is None or cell == "" else cell) for cell in row] for row in rows]
    if not table:
        say("(none)")
        return
    widths = [max(map(len, column)) for column in zip(headers, *table, strict=True)]
    for line in ([name.upper() for name in headers], *table):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_fields(fields: Mapping[str, Any]) -> None:
    """`name  value`, a line each; what is unset is left out."""
    shown = {name: _flat(value) for name, value in fields.items() if value not in (None, "", [], {})}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        click.echo(f"{name.ljust(width)}  {clean(value)}")


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_flat(item)}" for name, item in value.items() if item not in (None, ""))
    if isinstance(value, list):
        return ", ".join(map(_flat, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def advice(code: str) -> str:
    """What to do about it; empty for a code of a newer server."""
    return _ADVICE.get(code) or (CODES[code].help if code in CODES else "")


def print_error(program: str, error: HeadwayError) -> None:
    """What happened, to what; what to do; the request's id."""
    subject = f" ({clean(error.param)})" if error.param else ""
    say(f"{program}: {clean(error.message)}{subject} [{clean(error.code)}]")
    if error.type != "not_found" and (text := advice(error.code)):
        say(f"  {text}")
    if request_id := getattr(error, "request_id", None):
        say(f"  request id: {clean(request_id)}")


def error_document(error: HeadwayError) -> dict[str, Any]:
    inner = {"type": error.type, **error.as_dict(), "code": error.code}
    return {"error": inner, "request_id": getattr(error, "request_id", None)}
