"""Secrets kept out of logs and streams by their value, in every form in which programs usually print them.

Values shorter than `MIN_LENGTH` are left alone: to take every "1" out of a log would destroy it and hide nothing; and
what is encoded, backwards or broken over lines is looked for from `MIN_ENCODED` on, for the same reason.
Imports next to nothing: each instance's keeper has one.
"""

from __future__ import annotations

import base64
import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, quote_plus

MIN_LENGTH: Final = 4
MIN_ENCODED: Final = 8
MIN_TELLING: Final = 8
MARK: Final = b"[redacted]"
_PROBE: Final = 4
_MOST_BREAKS: Final = 256
_BREAKS: Final = b"\r\n"
_BREAK: Final = re.compile(rb"[\r\n]")


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
        # base64 and xxd break what they print after 76 and 60 characters.
        self._broken = [one for one in self._forms if len(one.text) >= MIN_ENCODED and not _BREAK.search(one.text)]
        # How far beyond a cut one has to look for what stands across it.
        self.reach = max((len(text) for text in forms), default=0)

    def hide(self, raw: bytes) -> bytes:
        """All of it at once."""
        return _replaced(raw, self._found(raw), 0, len(raw)) if self._forms else raw

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
        hits = [(at, -(at + len(form.text)), form.mark) for form in self._forms for at in _all_places(raw, form.text)]
        joined = _Joined(raw)
        for form in self._broken if joined.broken else ():
            for at in _all_places(joined.text, form.text):
                hits.append((joined.start(at), -(joined.place(at + len(form.text) - 1) + 1), form.mark))
        hits.sort()
        places: list[tuple[int, int, bytes]] = []
        for start, negative_end, mark in hits:
            end = -negative_end
            if places and start < places[-1][1]:
                places[-1] = (places[-1][0], max(end, places[-1][1]), places[-1][2])
            else:
                places.append((start, end, mark))
        return places

    def _open_end(self, raw: bytes) -> tuple[int, int]:
        """Up to where nothing can be the beginning of something hidden that goes on in the next chunk; and from where
        it takes to tell what the next chunk begins with."""
        end = min((start for form in self._forms for start in _open_starts(raw, form.text)), default=len(raw))
        joined, needed = _Joined(raw), end
        for form in self._broken if joined.broken else ():
            for at in _open_starts(joined.text, form.text):
                if len(raw) - joined.place(at) <= len(form.text) + _MOST_BREAKS:
                    end, needed = min(end, joined.start(at)), min(needed, joined.place(at))
        return end, min(needed, end)


class _Joined:
    """Output without its line breaks, and where each byte of that stands in it."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.text = raw.translate(None, _BREAKS)
        self.broken = len(self.text) < len(raw)
        self._before: list[int] | None = None

    def place(self, at: int) -> int:
        if self._before is None:
            self._before = [match.start() - nth for nth, match in enumerate(_BREAK.finditer(self._raw))]
        return at + bisect_right(self._before, at)

    def start(self, at: int) -> int:
        """From where it is hidden: fewer than `_PROBE` bytes at the end of a line are shown, and hold no line back."""
        start = self.place(at)
        found = _BREAK.search(self._raw, start, start + _PROBE)
        return start if found is None else self.place(at + found.start() - start)


class RedactedStream:
    """One stream's chunks, in order. Holds back only what may be the beginning of a value."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._rest, self._shown = b"", 0

    def feed(self, chunk: bytes) -> bytes:
        """What can be shown by now."""
        raw = self._rest + chunk
        end, needed = self._redactor._open_end(raw)
        places = self._places(raw)
        # A place that is not over yet may grow: it waits as a whole.
        end = min([end, *(start for start, stop, _ in places if stop > end)])
        needed = min(needed, end)
        shown = _replaced(raw, [place for place in places if place[1] <= end], self._shown, end)
        self._rest, self._shown = raw[needed:], end - needed
        return shown

    def flush(self) -> bytes:
        """The end of the stream: the rest."""
        raw, self._rest = self._rest, b""
        shown, self._shown = _replaced(raw, self._places(raw), self._shown, len(raw)), 0
        return shown

    def _places(self, raw: bytes) -> list[tuple[int, int, bytes]]:
        return [place for place in self._redactor._found(raw) if place[0] >= self._shown]


def forms_of(value: str) -> set[bytes]:
    """A value as itself, line by line, as base64 at every alignment, in hex, percent-encoded, in JSON, backwards."""
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
    found |= {_backwards(line) for line in lines if len(line) >= MIN_ENCODED}
    return {one for one in found if len(one) >= MIN_LENGTH}


def _backwards(raw: bytes) -> bytes:
    return raw.decode("utf-8", "surrogateescape")[::-1].encode("utf-8", "surrogateescape")


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
        at = raw.find(probe, at + 1)
    for start in range(max(begin, len(raw) - len(probe) + 1), len(raw)):
        if text.startswith(raw[start:]):
            yield start


def _replaced(raw: bytes, places: list[tuple[int, int, bytes]], begin: int, end: int) -> bytes:
    parts, at = [], begin
    for start, stop, mark in places:
        parts += [raw[at:start], mark]
        at = stop
    return b"".join([*parts, raw[at:end]])
