"""What a run holds of the disk without a name: counted, and never at the price of the watch itself."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from adapters.sandbox import watch
from adapters.sandbox.watch import DiskWatch, nameless

SIZE = 1 << 20


@pytest.fixture
def device(tmp_path: Path) -> int:
    return tmp_path.stat().st_dev


def test_a_deleted_file_that_is_open_counts_once(tmp_path: Path, device: int) -> None:
    before = nameless([os.getpid()], {device})
    with (tmp_path / "gone").open("wb") as file:
        file.write(b"x" * SIZE)
        file.flush()
        os.fsync(file.fileno())
        (tmp_path / "gone").unlink()
        held = nameless([os.getpid()] * 2, {device})
    assert before is not None
    assert held is not None
    assert SIZE <= held - before < 2 * SIZE


def test_so_many_that_looking_would_take_too_long_are_not_looked_at(
    tmp_path: Path, device: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MOST_SECONDS", 0.05)
    began = time.thread_time()
    assert nameless([os.getpid()] * 100_000, {device}) is None
    assert time.thread_time() - began < 5

    disk = DiskWatch([tmp_path], 1 << 50, before=[])
    disk.follow(os.getpid())
    monkeypatch.setattr(disk, "_room", lambda: (disk._free - (1 << 51), disk._nodes))
    for held, full in ((0, False), (None, True)):
        monkeypatch.setattr(watch, "nameless", lambda *_asked, held=held: held)
        assert disk.full() is full, "what the disk has lost counts where nobody knows better"
