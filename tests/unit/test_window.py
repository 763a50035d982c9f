"""Contents through a window: the right bytes, few requests."""

from __future__ import annotations

import random

import pytest

from adapters.artifact.layout import Layout, Location
from adapters.artifact.window import PackWindow
from headway.errors import HeadwayError

CHANCE = random.Random(7)
PACKS = {"a": CHANCE.randbytes(5000), "b": CHANCE.randbytes(3000)}


def shelf() -> tuple[Layout, dict[str, bytes]]:
    contents, wanted = {}, {}
    for pack, data in PACKS.items():
        offset = 0
        while offset < len(data):
            size = min(CHANCE.choice([0, 1, 40, 700, 2500]), len(data) - offset)
            name = f"{pack}{offset}-{size}"
            contents[name], wanted[name] = Location(pack, offset, size), data[offset : offset + size]
            offset += size or 1
    return Layout(contents), wanted


@pytest.mark.parametrize("window", [1, 64, 1000, 1 << 20])
def test_every_content_comes_whole_in_any_order(window: int) -> None:
    layout, wanted = shelf()
    reader = PackWindow(layout, lambda pack, offset, size: PACKS[pack][offset : offset + size], window=window)
    names = list(wanted)
    CHANCE.shuffle(names)
    for name in names:
        assert b"".join(reader.read(name, len(wanted[name]))) == wanted[name]


def test_neighbours_come_with_one_request() -> None:
    layout, wanted = shelf()
    asked: list[tuple[str, int, int]] = []

    def get_range(pack: str, offset: int, size: int) -> bytes:
        asked.append((pack, offset, size))
        return PACKS[pack][offset : offset + size]

    reader = PackWindow(layout, get_range)
    for name, data in wanted.items():
        assert b"".join(reader.read(name, len(data))) == data
    assert asked == [("a", 0, 5000), ("b", 0, 3000)]


def test_a_content_that_no_pack_holds_is_refused() -> None:
    layout, _ = shelf()
    with pytest.raises(HeadwayError, match="No pack holds"):
        list(PackWindow(layout, lambda *_: b"").read("elsewhere", 3))
