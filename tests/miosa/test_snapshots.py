"""A frozen tree on its way to a builder: hashed again, and nothing in it leads anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from adapters.artifact.snapshot import SnapshotFile, digest_of, dumped, is_left_out, parsed
from adapters.source.snapshot import fetch_snapshot
from headway.errors import HeadwayError


def file(path: str, content: bytes, offset: int = 0, mode: str = "644") -> SnapshotFile:
    return SnapshotFile(path, mode, len(content), hashlib.sha256(content).hexdigest(), "p", offset)


class Shelf:
    """A store that holds one snapshot and one pack, and tells what was asked of it. `breaks` answers end too early."""

    def __init__(self, files: list[SnapshotFile], pack: bytes, breaks: int = 0) -> None:
        self.files, self.pack, self.breaks = files, pack, breaks
        self.ranges: list[tuple[int, int]] = []
        self.pages: list[int] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/snapshot":
            return httpx.Response(200, content=dumped(self.files))
        first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
        start, end = int(first), int(last) + 1
        self.ranges.append((start, end))
        if self.breaks > 0:
            self.breaks -= 1
            end -= (end - start) // 2
        return httpx.Response(206, content=self.pack[start:end])

    def addresses(self, packs: Sequence[str]) -> dict[str, str]:
        self.pages.append(len(packs))
        return dict.fromkeys(packs, "http://s/p")

    def fetch(self, folder: Path, digest: str = "") -> list[str]:
        """The paths that were written."""
        http = httpx.Client(transport=httpx.MockTransport(self.answer))
        named = digest or digest_of(self.files)
        frozen = fetch_snapshot(http, named, "http://s/snapshot", self.addresses, folder, lambda: False)
        assert frozen.files == len(self.files)
        return sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if not one.is_dir())


def fetch(folder: Path, files: list[SnapshotFile], pack: bytes, digest: str = "") -> list[str]:
    return Shelf(files, pack).fetch(folder, digest)


def test_a_tree_arrives_as_it_was(tmp_path: Path) -> None:
    files = [file("a/b", b"one"), file("run", b"two", 3, "755"), file("empty", b""), file("l", b"a/b", 0, "link")]
    files[3] = SnapshotFile("l", "link", 3, hashlib.sha256(b"a/b").hexdigest(), "p", 6)
    assert fetch(tmp_path, files, b"onetwoa/b") == ["a/b", "empty", "l", "run"]
    assert (tmp_path / "l").read_bytes() == b"one"
    assert (tmp_path / "run").stat().st_mode & 0o111


def test_the_digest_is_of_the_tree_and_not_of_where_it_lies() -> None:
    one, other = file("a", b"x"), SnapshotFile("a", "644", 1, hashlib.sha256(b"x").hexdigest(), "elsewhere", 9)
    assert digest_of([one]) == digest_of([other])
    assert digest_of([one]) != digest_of([file("a", b"x", mode="755")])
    assert parsed(dumped([other]), digest_of([one])) == [other]


@pytest.mark.parametrize("path", ["../out", "/etc/x", "a/../b", "a//b", ".git/config", "a\nb", ""])
def test_a_path_that_leads_elsewhere_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(HeadwayError) as refused:
        fetch(tmp_path, [file(path, b"x")], b"x")
    assert refused.value.code == "source.invalid"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["/etc/passwd", "../out", "a/../../out"])
def test_a_link_that_leads_out_is_refused(tmp_path: Path, target: str) -> None:
    raw = target.encode()
    with pytest.raises(HeadwayError, match="symbolic link"):
        fetch(tmp_path, [file("link", raw, mode="link")], raw)


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    inside = tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (inside / "d").symlink_to(outside)
    with pytest.raises(HeadwayError) as refused:
        fetch(inside, [file("d/x", b"x")], b"x")
    assert refused.value.code == "source.invalid"
    assert not list(outside.iterdir())


def test_other_bytes_and_another_digest_are_refused(tmp_path: Path) -> None:
    for pack, digest, code in (
        (b"y", "", "source.invalid"),
        (b"x", "0" * 64, "source.invalid"),
        (b"", "", "upload.failed"),
    ):
        with pytest.raises(HeadwayError) as refused:
            fetch(tmp_path, [file("a", b"x")], pack, digest)
        assert refused.value.code == code
        assert not list(tmp_path.iterdir())


def test_what_is_not_needed_of_a_pack_is_not_read(tmp_path: Path) -> None:
    gap = 1 << 20
    pack = b"one" + bytes(gap) + b"two" + b"-" + b"three"
    files = [file("a", b"one"), file("b", b"two", 3 + gap), file("c", b"three", 7 + gap)]
    shelf = Shelf(files, pack)
    assert shelf.fetch(tmp_path) == ["a", "b", "c"]
    assert sorted(shelf.ranges) == [(0, 3), (3 + gap, 12 + gap)]


def test_a_lost_connection_goes_on_behind_what_has_arrived(tmp_path: Path) -> None:
    """Of large files, too, nothing half stays; equal ones are files of their own."""
    large = bytes(range(256)) * 8_192
    files = [file("a", b"x" * 10), file("b", large, 10), file("c", large, 10, "755"), file("d", b"", 10)]
    shelf = Shelf(files, b"x" * 10 + large, breaks=1)
    assert shelf.fetch(tmp_path) == ["a", "b", "c", "d"]
    assert shelf.ranges[0][0] == 0
    assert shelf.ranges[1][0] == 10
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes() == large
    assert (tmp_path / "b").stat().st_ino != (tmp_path / "c").stat().st_ino


def test_addresses_are_asked_for_some_at_a_time(tmp_path: Path) -> None:
    sha = hashlib.sha256(b"x").hexdigest()
    files = [SnapshotFile(f"f{n}", "644", 1, sha, f"{n:064x}", 0) for n in range(450)]
    shelf = Shelf(files, b"x")
    assert len(shelf.fetch(tmp_path)) == 450
    assert shelf.pages == [200, 200, 50]


def test_contents_that_lie_over_one_another_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HeadwayError) as refused:
        fetch(tmp_path, [file("a", b"xy"), file("b", b"yz", 1)], b"xyz")
    assert refused.value.code == "source.invalid"


def test_what_a_publish_leaves_out() -> None:
    for path in ("node_modules/a", "x/node_modules/a", ".git/HEAD", ".next/cache/a", "._x", "a/.DS_Store"):
        assert is_left_out(path)
    for path in (".next/static/a", ".gitignore", "modules/a", ".well-known/x"):
        assert not is_left_out(path)
