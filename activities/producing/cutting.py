"""A log that is cut: so much of what a build prints is shown, then a note, and its last lines at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

KEPT: Final = 16 << 20
TAIL: Final = 32 << 10
# What a line costs beside its text, where it is kept.
PER_LINE: Final = 80


class CutLog:
    """Feed chunks per stream; `show(stream, chunk)` gets those within `kept` bytes, lines counted in.

    Past them the build goes on: what it prints is counted, and of each stream the last `TAIL` bytes are remembered,
    from the beginning of a line on. Raw bytes come in, so that the rest costs next to nothing.
    """

    def __init__(self, kept: int, show: Callable[[str, bytes], None], note: Callable[[str], None]) -> None:
        self._kept, self._show, self._note = kept, show, note
        self._used = 0
        self._cut = False
        self._bytes = self._lines = 0
        self._tails: dict[str, bytes] = {}
        # Streams in the midst of a line: what is left of it after the cut could be the end of a secret.
        self._midst: set[str] = set()

    def feed(self, stream: str, chunk: bytes) -> None:
        if self._cut:
            return self._count(stream, chunk)
        cost = len(chunk) + PER_LINE * chunk.count(b"\n")
        if self._used + cost <= self._kept:
            self._used += cost
            self._midst.discard(stream)
            if chunk and not chunk.endswith(b"\n"):
                self._midst.add(stream)
            return self._show(stream, chunk)
        # At the end of a line: what is half shown would have a mark of its own where a secret is cut in two.
        room = max(0, self._kept - self._used) * len(chunk) // cost
        end = chunk.rfind(b"\n", 0, room) + 1
        if end:
            self._midst.discard(stream)
            self._show(stream, chunk[:end])
        self._cut = True
        self._note(f"The log is cut here, at {self._kept} bytes: the build goes on, and its last lines are shown.")
        return self._count(stream, chunk[end:])

    def end(self) -> None:
        """Say what was left out, and the last lines."""
        tails = {stream: self._last(tail) for stream, tail in self._tails.items()}
        self._bytes -= sum(map(len, tails.values()))
        self._lines -= sum(tail.count(b"\n") for tail in tails.values())
        if self._bytes > 0:
            self._note(f"{self._lines} lines, {self._bytes} bytes, were left out here.")
        for stream, tail in tails.items():
            self._show(stream, tail)
        self._tails.clear()

    def _count(self, stream: str, chunk: bytes) -> None:
        self._bytes += len(chunk)
        self._lines += chunk.count(b"\n")
        if stream in self._midst:
            _, ended, chunk = chunk.partition(b"\n")
            if not ended:
                return
            self._midst.discard(stream)
        self._tails[stream] = (self._tails.get(stream, b"") + chunk)[-TAIL - 1 :]

    def _last(self, tail: bytes) -> bytes:
        return tail if len(tail) <= TAIL else tail.partition(b"\n")[2]
