"""Secrets kept out of logs and streams by their value, in every form in which programs usually print them.

Values shorter than `MIN_LENGTH` are left alone: to take every "1" out of a log would destroy it and hide nothing; and
what is encoded is looked for from `MIN_ENCODED` on, for the same reason. Imports next to nothing: each instance's
keeper has one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, quote_plus

MIN_LENGTH: Final = 4
MIN_ENCODED: Final = 8
MIN_TELLING: Final = 8
MARK: Final = b"[redacted]"
_PROBE: Final = 4


@dataclass(frozen=True)
class _Form:
    text: bytes
    mark: bytes


def telling(values: Mapping[str, str]) -> dict[str, str]:
    """Those of some variables that are worth hiding: no plain word (`production`), and nothing short."""
    return {name: value for name, value in values.items() if len(value) >= MIN_TELLING and not value.isalpha()}


class Redactor:
    """Knows some values. Thread-safe: nothing of a stream is kept here. Without values it costs nothing."""

    def __init__(self, values: Mapping[str, str] | Iterable[str] = ()) -> None:
        """`values` by name stand as `[NAME redacted]` in the output, without names as `[redacted]`."""
        named = values.items() if isinstance(values, Mapping) else [("", value) for value in values]
        forms: dict[bytes, bytes] = {}
        for name, value in named:
            mark = f"[{name} redacted]".encode() if name else MARK
            for text in forms_of(value):
                forms.setdefault(text, mark)
        # The longest first: where one value is part of another, the whole is named.
        self._forms = [_Form(text, forms[text]) for text in sorted(forms, key=len, reverse=True)]
        # How far beyond a cut one has to look for what stands across it.
        self.reach = max((len(text) for text in forms), default=0)

    def hide(self, raw: bytes) -> bytes:
        """All of it at once."""
        return _replaced(raw, self._found(raw)) if self._forms else raw

    def hide_text(self, text: str) -> str:
        """As `hide`; half surrogates, which no value has, come through."""
        if not self._forms:
            return text
        return self.hide(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def stream(self) -> RedactedStream:
        """For output that comes in chunks."""
        return RedactedStream(self)

    def _found(self, raw: bytes) -> list[tuple[int, int, bytes]]:
        """Where something is to be hidden, in order: `(start, end, mark)`. What overlaps is one place."""
        hits = sorted(
            (at, -(at + len(form.text)), form.mark) for form in self._forms for at in _all_places(raw, form.text)
        )
        places: list[tuple[int, int, bytes]] = []
        for start, negative_end, mark in hits:
            end = -negative_end
            if places and start < places[-1][1]:
                places[-1] = (places[-1][0], max(end, places[-1][1]), places[-1][2])
            else:
                places.append((start, end, mark))
        return places

    def _safe_end(self, raw: bytes) -> int:
        """Up to where nothing can be the beginning of something hidden that goes on in the next chunk."""
        return min((start for form in self._forms for start in _open_starts(raw, form.text)), default=len(raw))


class RedactedStream:
    """One stream's chunks, in order. Holds back only what may be the beginning of a value."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._rest = b""

    def feed(self, chunk: bytes) -> bytes:
        """What can be shown by now."""
        raw = self._rest + chunk
        end = self._redactor._safe_end(raw)
        places = self._redactor._found(raw)
        # A place that is not over yet may grow: it waits as a whole.
        end = min([end, *(start for start, stop, _ in places if stop > end)])
        shown, self._rest = raw[:end], raw[end:]
        return _replaced(shown, [place for place in places if place[1] <= end])

    def flush(self) -> bytes:
        """The end of the stream: the rest."""
        raw, self._rest = self._rest, b""
        return self._redactor.hide(raw)


def forms_of(value: str) -> set[bytes]:
    """A value as itself, line by line, as base64 at every alignment, in hex, percent-encoded, in JSON."""
    if len(value) < MIN_LENGTH:
        return set()
    raw = value.encode("utf-8", "surrogateescape")
    found = {raw, raw.replace(b"\n", b"\r\n"), raw.strip()}
    found |= {line.strip() for line in raw.splitlines() if not line.startswith(b"-----")}
    for encoded in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        found |= {encoded.encode(), encoded.lower().encode()}
    found |= {json.dumps(value, ensure_ascii=ascii)[1:-1].encode("utf-8", "surrogateescape") for ascii in (True, False)}
    lines = {raw, raw.strip(), *found.intersection(line.strip() for line in raw.splitlines())}
    found |= {one for line in lines for one in _base64_of(line) if len(one) >= MIN_ENCODED}
    found |= {one for line in lines for one in (line.hex().encode(), line.hex().upper().encode())}
    return {one for one in found if len(one) >= MIN_LENGTH}


def _base64_of(raw: bytes) -> Iterator[bytes]:
    """Base64 of the value alone, and the part of it that is the same wherever in a longer text the value stands."""
    for encode in (base64.standard_b64encode, base64.urlsafe_b64encode):
        whole = encode(raw)
        yield whole
        yield whole.rstrip(b"=")
        for before in range(3):
            # Characters that share bits with what is before or after the value are not the value's own.
            first = -(-before * 8 // 6)
            last = (before + len(raw)) * 8 // 6
            yield encode(b"\0" * before + raw)[first:last]


def _all_places(raw: bytes, text: bytes) -> Iterator[int]:
    at = raw.find(text)
    while at >= 0:
        yield at
        at = raw.find(text, at + 1)


def _open_starts(raw: bytes, text: bytes) -> Iterator[int]:
    """Where the end of `raw` is the beginning of `text`, and `text` goes on."""
    begin = max(0, len(raw) - len(text) + 1)
    probe = text[:_PROBE]
    at = raw.find(probe, begin)
    while at >= 0:
        if text.startswith(raw[at:]):
            yield at
            return
        at = raw.find(probe, at + 1)
    for start in range(max(begin, len(raw) - len(probe) + 1), len(raw)):
        if text.startswith(raw[start:]):
            yield start
            return


def _replaced(raw: bytes, places: list[tuple[int, int, bytes]]) -> bytes:
    if not places:
        return raw
    parts, at = [], 0
    for start, end, mark in places:
        parts += [raw[at:start], mark]
        at = end
    return b"".join([*parts, raw[at:]])
