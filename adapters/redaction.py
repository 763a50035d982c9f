"""Secrets kept out of logs and streams by their value, in every form in which programs usually print them.

Values shorter than `MIN_LENGTH` are left alone: to take every "1" out of a log would destroy it and hide nothing; and
what is encoded, backwards or broken over lines is looked for from `MIN_ENCODED` on, for the same reason.
Imports next to nothing: each instance's keeper has one.
"""

from __future__ import annotations

import base64
import json
import re
from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, quote_plus

MIN_LENGTH: Final = 4
MIN_ENCODED: Final = 8
MIN_TELLING: Final = 8
MARK: Final = b"[redacted]"
# Among the variables that a host is given: the names of those whose values may be read. Nobody else may set it.
SHOWN: Final = "HEADWAY_SHOWN"
_PROBE: Final = 4
_MOST_BREAKS: Final = 256
_BREAK: Final = re.compile(rb"[\r\n]")
# Whatever has as many bytes shows at least one of its own words of four to whoever looks at every second word alone.
_SIFTED: Final = 11
_WORD: Final = 4


@dataclass(frozen=True)
class _Form:
    text: bytes
    mark: bytes


def hidden_of(values: Mapping[str, str]) -> dict[str, str]:
    """Those of a host's variables that are to be hidden."""
    shown = {SHOWN, *values.get(SHOWN, "").split(",")}
    return {name: value for name, value in values.items() if name not in shown}


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
        self._sieve = _Sieve(self._forms)
        self._begins = _Begins(self._forms)
        # base64 and xxd break what they print after 76 and 60 characters.
        self._broken = _Begins([one for one in self._forms if _may_break(one.text)])
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
        joined = _Joined(raw)
        hits: list[tuple[int, int, bytes]] = []
        for form in self._sieve.likely(joined.text):
            hits += [(start, -end, form.mark) for start, end in _all_places(raw, form.text)]
            if joined.broken and _may_break(form.text):
                for start, end in _all_places(joined.text, form.text):
                    hits.append((joined.start(start), -(joined.place(end - 1) + 1), form.mark))
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
        end = next((at for at, _ in self._begins.open(raw)), len(raw))
        before = max(0, len(raw) - self.reach - _MOST_BREAKS)
        tail = _Joined(raw[before:])
        for at, form in self._broken.open(tail.text) if tail.broken else ():
            start, place = before + tail.start(at), before + tail.place(at)
            if len(raw) - place <= len(form.text) + _MOST_BREAKS:
                return min(end, start), min(end, place)
        return end, end


class _Sieve:
    """Which of many forms may stand in some output: one look at every few bytes of it, however many they are."""

    def __init__(self, forms: Sequence[_Form]) -> None:
        self._few = [form for form in forms if len(form.text) < _SIFTED or _BREAK.search(form.text)]
        sifted = [form for form in forms if len(form.text) >= _SIFTED and not _BREAK.search(form.text)]
        shortest = min((len(form.text) for form in sifted), default=_SIFTED)
        self._step = (shortest - _WORD + 1) // _WORD
        self._forms: dict[int, list[_Form]] = defaultdict(list)
        for form in sifted:
            for word in {form.text[at : at + _WORD] for at in range(len(form.text) - _WORD + 1)}:
                self._forms[array("I", word)[0]].append(form)
        self._words = frozenset(self._forms)

    def likely(self, joined: bytes) -> Iterator[_Form]:
        """`joined` has no line breaks: what stands there with some stands in it without."""
        yield from self._few
        if not self._words:
            return
        found = self._words.intersection(_words(joined)[:: self._step])
        yield from {id(form): form for word in found for form in self._forms[word]}.values()


class _Begins:
    """Which of many forms the end of some output may be the beginning of."""

    def __init__(self, forms: Sequence[_Form]) -> None:
        self._reach = max((len(form.text) for form in forms), default=0)
        self._forms: dict[bytes, list[_Form]] = defaultdict(list)
        for form in forms:
            for size in range(1, min(_PROBE, len(form.text) - 1) + 1):
                self._forms[form.text[:size]].append(form)
        self._probes = frozenset(self._forms)
        self._words = frozenset(array("I", probe)[0] for probe in self._probes if len(probe) == _WORD)

    def open(self, raw: bytes) -> Iterator[tuple[int, _Form]]:
        """Where the end of `raw` is the beginning of a form, and the form goes on; the first place first."""
        probes, size = self._probes, len(raw)
        first = max(0, size - self._reach + 1)
        # As a rule no word of the end begins a form, wherever it begins itself: then its last three bytes are left.
        if not any(self._words.intersection(_words(raw, at)) for at in range(first, min(first + _WORD, size))):
            first = max(first, size - _WORD + 1)
        for at in range(first, size):
            if (begin := raw[at : at + _PROBE]) in probes:
                rest = raw[at:]
                for form in self._forms[begin]:
                    if len(rest) < len(form.text) and form.text.startswith(rest):
                        yield at, form


class _Joined:
    """Output without its line breaks, and where each byte of that stands in it."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.text = raw.replace(b"\n", b"").replace(b"\r", b"")
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
        if not self._redactor._forms:
            return chunk
        raw = self._rest + chunk
        end, needed = self._redactor._open_end(raw)
        places = self._places(raw)
        # A place that is not over yet may grow: it waits as a whole.
        end, over = min([(end, end), *((start, stop) for start, stop, _ in places if stop > end)])
        around = self._redactor.reach + _MOST_BREAKS
        if over - end > 2 * around:
            # Of a value that repeats itself such a place may have no end: it is hidden as far as it came.
            end, needed = over, over - around
        needed = min(needed, end)
        shown = _replaced(raw, [place for place in places if place[1] <= end], self._shown, end)
        self._rest, self._shown = raw[needed:], end - needed
        return shown

    @property
    def waits(self) -> bool:
        """Whether `settle` has something to look at."""
        return b"\n" in self._rest[self._shown :]

    def settle(self) -> bytes:
        """What waits with the end of its line, for a stream that is quiet. The rest of it waits on."""
        places = self._places(self._rest)
        end = max(self._rest.rfind(b"\n") + 1, self._shown)
        end = min([end, *(start for start, stop, _ in places if stop > end)])
        shown = _replaced(self._rest, [place for place in places if place[1] <= end], self._shown, end)
        self._rest, self._shown = self._rest[end:], 0
        return shown

    def flush(self) -> bytes:
        """The end of the stream: the rest."""
        raw, self._rest = self._rest, b""
        shown, self._shown = _replaced(raw, self._places(raw), self._shown, len(raw)), 0
        return shown

    def _places(self, raw: bytes) -> list[tuple[int, int, bytes]]:
        found = self._redactor._found(raw)
        return [(max(start, self._shown), stop, mark) for start, stop, mark in found if stop > self._shown]


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


def _all_places(raw: bytes, text: bytes) -> Iterator[tuple[int, int]]:
    """What overlaps is one place: a value that repeats itself may stand at every byte."""
    start = raw.find(text)
    while start >= 0:
        end = start + len(text)
        while (last := raw.rfind(text, end - len(text) + 1, end + len(text) - 1)) >= 0:
            end = last + len(text)
        yield start, end
        start = raw.find(text, end)


def _words(raw: bytes, first: int = 0) -> array[int]:
    """The whole words of four bytes from there on."""
    return array("I", raw[first : len(raw) - (len(raw) - first) % _WORD])


def _may_break(text: bytes) -> bool:
    return len(text) >= MIN_ENCODED and not _BREAK.search(text)


def _replaced(raw: bytes, places: list[tuple[int, int, bytes]], begin: int, end: int) -> bytes:
    parts, at = [], begin
    for start, stop, mark in places:
        parts += [raw[at:start], mark]
        at = stop
    return b"".join([*parts, raw[at:end]])
