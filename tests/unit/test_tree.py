from __future__ import annotations

import hashlib
import os
import socket
import stat
from pathlib import Path

import pytest

from adapters.artifact.folder import Folder
from adapters.artifact.manifest import Entry, File, Link, make_manifest
from adapters.artifact.tree import Bounds, Tree, scan
from headway.errors import HeadwayError


def scanned(root: Path, bounds: Bounds | None = None) -> Tree:
    with Folder(root) as folder:
        return scan(folder, bounds)


def entries(root: Path) -> dict[str, Entry]:
    return {one.path: one for one in make_manifest(scanned(root).entries).entries}


def refusal(root: Path, bounds: Bounds | None = None) -> HeadwayError:
    with pytest.raises(HeadwayError) as caught:
        make_manifest(scanned(root, bounds).entries)
    assert caught.value.code == "build.output_invalid"
    return caught.value


def test_files_links_and_modes(tmp_path: Path) -> None:
    (tmp_path / "a" / "empty").mkdir(parents=True)
    (tmp_path / "a" / "page.html").write_bytes(b"hello")
    (tmp_path / "run").write_bytes(b"#!")
    (tmp_path / "run").chmod(0o4711)
    (tmp_path / "none").touch(0o600)
    os.link(tmp_path / "a" / "page.html", tmp_path / "twin")
    (tmp_path / "l").symlink_to("a/page.html")
    found = entries(tmp_path)
    sha = hashlib.sha256(b"hello").hexdigest()
    assert found["a/page.html"] == File("a/page.html", "644", 5, sha)
    assert found["twin"] == File("twin", "644", 5, sha)
    assert found["run"].mode == "755"  # type: ignore[union-attr]
    assert found["none"] == File("none", "644", 0, hashlib.sha256(b"").hexdigest())
    assert found["l"] == Link("l", "a/page.html")
    assert len(found) == 5
    assert len(scanned(tmp_path).contents) == 3


def test_the_repository_and_the_settings_file_are_left_out(tmp_path: Path) -> None:
    for name in (".git/config", "sub/.git/config", "headway.toml", "sub/headway.toml", ".well-known/x", "sub2/.git"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert set(entries(tmp_path)) == {"sub/headway.toml", ".well-known/x"}


def test_links_out_of_the_tree_are_refused_by_name(tmp_path: Path) -> None:
    root = tmp_path / "out"
    root.mkdir()
    (tmp_path / "secret").write_text("secret")
    link = root / "l"
    for target in ("/etc/passwd", "../secret", "a/../../secret", str(tmp_path / "secret")):
        link.symlink_to(target)
        assert refusal(root).details["path"] == "l"
        link.unlink()


def test_a_linked_folder_is_a_link_and_is_not_entered(tmp_path: Path) -> None:
    root = tmp_path / "out"
    (root / "real").mkdir(parents=True)
    (root / "real" / "f").write_text("x")
    (root / "alias").symlink_to("real")
    assert set(entries(root)) == {"alias", "real/f"}


def test_names_with_newlines_and_foreign_bytes_are_named_escaped(tmp_path: Path) -> None:
    for name, shown in ((b"a\nb", r"a\nb"), (b"caf\xe9", r"caf\xe9"), (b"x\x1b[2J", r"x\x1b[2J")):
        path = os.path.join(os.fsencode(tmp_path), name)
        Path(os.fsdecode(path)).touch()
        error = refusal(tmp_path)
        assert error.details["path"] == shown
        assert shown in error.message
        os.unlink(path)
    Path(tmp_path, "x.headway-etag").touch()
    assert "reserved" in refusal(tmp_path).message


def test_special_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd"
    os.mkfifo(path)
    assert "pipe" in refusal(tmp_path).message
    path.unlink()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        assert "socket" in refusal(tmp_path).message
    path.unlink()
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        return
    assert "device" in refusal(tmp_path).message


def test_limits_are_checked_before_bytes_are_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(4 << 30)
    assert "sparse is larger" in refusal(tmp_path).message
    (tmp_path / "sparse").unlink()
    for i in range(6):
        (tmp_path / f"f{i}").write_bytes(b"12345")
    assert "more than 5 files" in refusal(tmp_path, Bounds(files=5)).message
    assert "larger than 29 bytes" in refusal(tmp_path, Bounds(total_bytes=29)).message
    assert scanned(tmp_path, Bounds(files=6, total_bytes=30)).size_bytes == 30
    for i in range(24):
        (tmp_path / f"d{i}").mkdir()
    assert "too many" in refusal(tmp_path, Bounds(files=6)).message
    (tmp_path / "/".join(["d0"] * 5)).mkdir(parents=True)
    assert "deep" in refusal(tmp_path, Bounds(depth=3)).message


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"x" * (3 << 20))
    read = os.read

    def growing(fd: int, size: int) -> bytes:
        with big.open("ab") as file:
            file.write(b"y")
        return read(fd, size)

    monkeypatch.setattr(os, "read", growing)
    assert "changed" in refusal(tmp_path).message


def test_cancel_stops_a_scan(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * (3 << 20))
    with Folder(tmp_path) as folder, pytest.raises(HeadwayError) as caught:
        scan(folder, canceled=lambda: True)
    assert caught.value.code == "job.canceled"


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "bad\n").touch()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        refusal(tmp_path)
        with Folder(tmp_path) as folder:
            assert folder.read("d/none", 10) is None
            assert folder.read("none/x", 10) is None
            assert folder.folder("none") is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_folder_reads_small_files_and_follows_nothing(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "d").mkdir(parents=True)
    (root / "d" / "f").write_text("hello")
    (tmp_path / "outside").write_text("secret")
    (root / "l").symlink_to("../outside")
    (root / "ld").symlink_to("d")
    os.mkfifo(root / "pipe")
    with Folder(root) as folder:
        assert folder.read("d/f", 5) == b"hello"
        assert folder.read("./d//f", 5) == b"hello"
        for path, limit in (("l", 9), ("ld/f", 9), ("d/../../outside", 9), ("pipe", 9), ("d", 9), ("d/f", 4)):
            with pytest.raises(HeadwayError) as caught:
                folder.read(path, limit)
            assert caught.value.code == "build.output_invalid"
