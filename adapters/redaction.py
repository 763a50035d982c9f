"""Values of secrets taken out of text before it is written: as they are, line by line, and in base64.

Imports next to nothing: each instance's keeper has one.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator

SHORTEST = 4  # a shorter value would black out half a log, and hides nothing
SHORTEST_ENCODED = 8
MASK = b"[redacted]"


class Redactor:
    """Knows values; `clean` takes them out of a line. Without values it costs nothing."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        forms = {form for value in values for form in _forms(value.encode("utf-8", "surrogateescape"))}
        longest = sorted(forms, key=lambda form: (-len(form), form))
        self._pattern = re.compile(b"|".join(map(re.escape, longest))) if longest else None
        self.reach = max((len(form) for form in forms), default=0)

    def clean(self, data: bytes) -> bytes:
        return data if self._pattern is None else self._pattern.sub(MASK, data)


def _forms(value: bytes) -> Iterator[bytes]:
    for part in {value, value.strip(), *value.splitlines()}:
        if len(part) < SHORTEST:
            continue
        yield part
        yield from _encoded(part)


def _encoded(value: bytes) -> Iterator[bytes]:
    """What base64 makes of the value wherever in a longer text it stands: three alignments, loose ends cut off."""
    for before in range(3):
        text = b64encode(b"\0" * before + value).rstrip(b"=")
        whole = text[(0, 2, 3)[before] : (before + len(value)) * 8 // 6]
        if len(whole) >= SHORTEST_ENCODED:
            yield whole
            yield whole.translate(bytes.maketrans(b"+/", b"-_"))
