"""A frozen tree on its way to a builder: hashed again, and nothing in it leads anywhere."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx
import pytest

from adapters.artifact.snapshot import SnapshotFile, digest_of, dumped, is_left_out, parsed
from adapters.source.snapshot import fetch_snapshot
from headway.errors import HeadwayError


def file(path: str, content: bytes, offset: int = 0, mode: str = "644") -> SnapshotFile:
    return SnapshotFile(path, mode, len(content), hashlib.sha256(content).hexdigest(), "p", offset)


def fetch(folder: Path, files: list[SnapshotFile], pack: bytes, digest: str = "") -> list[str]:
    """Fetch from a store that holds just this; the paths that were written."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/snapshot":
            return httpx.Response(200, content=dumped(files))
        end = int(request.headers["range"].rpartition("-")[2]) + 1
        return httpx.Response(206, content=pack[:end])

    http = httpx.Client(transport=httpx.MockTransport(answer))
    frozen = fetch_snapshot(
        http, digest or digest_of(files), "http://s/snapshot", {"p": "http://s/p"}, folder, lambda: False
    )
    assert frozen.files == len(files)
    return sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if not one.is_dir())


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
    for pack, digest in ((b"y", ""), (b"x", "0" * 64), (b"", "")):
        with pytest.raises(HeadwayError) as refused:
            fetch(tmp_path, [file("a", b"x")], pack, digest)
        assert refused.value.code == "source.invalid"


def test_what_a_publish_leaves_out() -> None:
    for path in ("node_modules/a", "x/node_modules/a", ".git/HEAD", ".next/cache/a", "._x", "a/.DS_Store"):
        assert is_left_out(path)
    for path in (".next/static/a", ".gitignore", "modules/a", ".well-known/x"):
        assert not is_left_out(path)
