"""Reading contents out of packs through a window: neighbours in a pack come with one request, not one each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from adapters.artifact.layout import Layout, Location
from headway.errors import HeadwayError

WINDOW: Final = 4 << 20

GetRange = Callable[[str, int, int], bytes]


class PackWindow:
    """For one reader. `get_range(pack, offset, size)` answers exactly these bytes; at most a window is in memory."""

    def __init__(self, layout: Layout, get_range: GetRange, *, window: int = WINDOW) -> None:
        self._layout = layout
        self._get_range = get_range
        self._window = window
        self._ends: dict[str, int] = {}
        for one in layout.contents.values():
            self._ends[one.pack] = max(self._ends.get(one.pack, 0), one.offset + one.size)
        self._pack, self._start, self._held = "", 0, b""

    def read(self, sha256: str, size: int) -> Iterator[bytes]:
        """The content's bytes in pieces. Raises roll.verify_failed where the layout does not have it."""
        where = self._layout.contents.get(sha256)
        if where is None or where.size != size:
            raise HeadwayError("roll.verify_failed", f"No pack holds the content {sha256[:12]}….")
        offset, end = where.offset, where.offset + size
        while offset < end:
            piece = self._piece(where, offset, end)
            offset += len(piece)
            yield piece

    def _piece(self, where: Location, offset: int, end: int) -> bytes:
        if where.pack != self._pack or not self._start <= offset < self._start + len(self._held):
            size = min(self._window, self._ends[where.pack] - offset)
            self._held = self._get_range(where.pack, offset, size)
            self._pack, self._start = where.pack, offset
        at = offset - self._start
        return self._held[at : at + end - offset]
