"""A cache as one object: what comes out is what went in, and nothing of an archive leaves its folder."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import zstandard

from adapters.cache_archive import MAGIC, Bounds, UnusableCache, fingerprint, pack, unpack

ROOM = Bounds(size=1 << 20, files=100)


def packed(folder: Path, left_out: tuple[str, ...] = ()) -> io.BytesIO:
    file = io.BytesIO()
    pack(folder, file, ROOM, left_out)
    file.seek(0)
    return file


def made(rows: list[Any], contents: bytes = b"") -> io.BytesIO:
    index = json.dumps(rows).encode()
    return io.BytesIO(zstandard.compress(MAGIC + len(index).to_bytes(8, "big") + index + contents))


def test_what_was_packed_comes_out(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    (source / "deep/er").mkdir(parents=True)
    (source / "empty").mkdir()
    (source / "deep/er/file").write_bytes(b"x" * 300_000)
    (source / "run").write_text("#!/bin/sh\n")
    (source / "run").chmod(0o4755)
    (source / "link").symlink_to("/etc/passwd")
    (source / "skipped").write_text("log")
    Path(os.fsdecode(os.fsencode(source) + b"/caf\xe9\n")).write_text("odd")
    os.mkfifo(source / "pipe")
    os.utime(source / "run", (1_000_000_000, 1_000_000_000))
    target.mkdir()
    archive = packed(source, ("skipped",))
    assert packed(source, ("skipped",)).getvalue() == archive.getvalue()
    unpack(archive, target, ROOM)
    found = sorted(os.fsencode(path.relative_to(target)) for path in target.rglob("*"))
    assert found == [b"caf\xe9\n", b"deep", b"deep/er", b"deep/er/file", b"empty", b"link", b"run"]
    assert (target / "deep/er/file").read_bytes() == b"x" * 300_000
    assert (target / "link").readlink() == Path("/etc/passwd")
    status = (target / "run").stat()
    assert (status.st_mode & 0o7777, status.st_mtime) == (0o755, 1_000_000_000)
    assert fingerprint(target / "deep", ROOM) == fingerprint(source / "deep", ROOM) != fingerprint(source, ROOM)


@pytest.mark.parametrize(
    "rows",
    [
        [["../out", "f", 1, 0]],
        [["/tmp/out", "f", 1, 0]],
        [["a/../../out", "f", 1, 0]],
        [["", "f", 1, 0]],
        [["a\0b", "f", 1, 0]],
        [["a", "l", "../..", 0], ["a/out", "l", "x", 0]],
        [["a", "f", 1, 0], ["a/out", "f", 1, 0]],
        [["a", "f", 1, 0], ["a", "f", 1, 0]],
        [["a", "f", 1, 0], ["a", "l", "/etc", 0]],
        [["a", "c", 0, 0]],
        [["a", "f", -1, 0]],
        [["a", "f", 5 << 20, 0]],
        [["\udfff", "f", 1, 0]],
        [["x/" * 300 + "y", "d", 0, 0]],
        [[f"{n}", "d", 0, 0] for n in range(101)],
        [["a", "f", 100, 0]],
        {"a": 1},
    ],
)
def test_an_archive_cannot_leave_its_folder_or_its_bounds(tmp_path: Path, rows: list[Any]) -> None:
    target = tmp_path / "inner" / "cache"
    target.mkdir(parents=True)
    with pytest.raises(UnusableCache):
        unpack(made(rows, b"xy"), target, ROOM)
    assert [path.name for path in (tmp_path / "inner").iterdir()] == ["cache"]
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]
    assert not any(path.is_symlink() and path.name == "out" for path in target.rglob("*"))


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside, target = tmp_path / "outside", tmp_path / "cache"
    outside.mkdir()
    target.mkdir()
    # Links come last, whatever the index says: the file's folder is made first, and then the link has no place.
    with pytest.raises(UnusableCache):
        unpack(made([["a", "l", str(outside), 0], ["a/file", "f", 1, 0]], b"x"), target, ROOM)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    "raw", [b"", b"not an archive", zstandard.compress(b"other"), made([["a", "d", 0, 0]]).getvalue()[:-4]]
)
def test_what_is_no_archive_is_said(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(UnusableCache):
        unpack(io.BytesIO(raw), tmp_path, ROOM)


def test_a_folder_past_the_bounds_is_not_packed(tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(4 << 30)
    with pytest.raises(UnusableCache, match="more than"):
        packed(tmp_path)
    (tmp_path / "holes").unlink()
    for number in range(101):
        (tmp_path / str(number)).touch()
    with pytest.raises(UnusableCache, match="100 files"):
        packed(tmp_path)
