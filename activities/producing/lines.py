"""A command's output as lines: any bytes in, text out, bounded in length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MAX_LINE: Final = 8 << 10


def count(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


class LineSplitter:
    """Feed chunks per stream; `say(stream, line)` gets each line without its end.

    What is not UTF-8 becomes U+FFFD; a line of more than 8 KiB is cut into several, never within a character. While
    `flooded()` whole chunks are only counted, by `drop(lines)`: millions of empty lines cost no more than long ones.
    """

    def __init__(
        self,
        say: Callable[[str, str], None],
        flooded: Callable[[], bool] = lambda: False,
        drop: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._say = say
        self._flooded = flooded
        self._drop = drop
        self._rest: dict[str, bytes] = {}

    def feed(self, stream: str, chunk: bytes) -> None:
        if self._flooded() and b"\n" in chunk:
            self._drop(chunk.count(b"\n"))
            chunk = chunk[chunk.rindex(b"\n") + 1 :]
            self._rest[stream] = b""
        *lines, rest = (self._rest.get(stream, b"") + chunk).split(b"\n")
        for line in lines:
            self._emit(stream, line)
        while len(rest) > MAX_LINE:
            end = _character_start(rest, MAX_LINE)
            self._emit(stream, rest[:end])
            rest = rest[end:]
        self._rest[stream] = rest

    def flush(self) -> None:
        """Say what came without an end of line."""
        for stream, rest in self._rest.items():
            if rest:
                self._emit(stream, rest)
        self._rest.clear()

    def _emit(self, stream: str, line: bytes) -> None:
        line = line.removesuffix(b"\r")
        while len(line) > MAX_LINE:
            end = _character_start(line, MAX_LINE)
            self._say(stream, line[:end].decode("utf-8", "replace"))
            line = line[end:]
        self._say(stream, line.decode("utf-8", "replace"))


def _character_start(raw: bytes, end: int) -> int:
    """The last place up to `end` where a UTF-8 character begins."""
    for back in range(4):
        if raw[end - back] & 0xC0 != 0x80:
            return end - back
    return end
