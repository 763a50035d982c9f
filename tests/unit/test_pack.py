from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import zstandard
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from adapters.artifact.export import export_tar, export_zst
from adapters.artifact.folder import Folder
from adapters.artifact.manifest import File, Link, Manifest, make_manifest
from adapters.artifact.pack import make_pack
from adapters.artifact.tree import Bounds, scan
from headway.errors import HeadwayError


def fill(root: Path, tree: dict[str, bytes]) -> Path:
    for name, body in tree.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(body)
    return root


FILES = st.dictionaries(
    st.sampled_from([f"{d}f{i}" for d in ("", "a/", "b/") for i in range(4)]), st.binary(max_size=40)
)


@seed(11)
@settings(max_examples=60, deadline=None, database=None)
@given(FILES, st.integers(0, 60), st.randoms(use_true_random=False))
def test_every_content_is_at_its_place_in_the_pack(tree: dict[str, bytes], held: int, random: object) -> None:
    with TemporaryDirectory() as name, Folder(fill(Path(name), tree)) as folder:
        found = scan(folder, Bounds(held=held), together=True)
        missing = [sha for sha in found.contents if random.random() < 0.7]  # type: ignore[attr-defined]
        pack = make_pack(folder, found, missing)
        if pack is None:
            assert missing == []
            return
        raw = b"".join(pack.chunks())
        assert (hashlib.sha256(raw).hexdigest(), len(raw)) == (pack.sha256, pack.size)
        assert set(pack.locations) == set(missing)
        for sha, at in pack.locations.items():
            assert at.pack == pack.sha256
            assert hashlib.sha256(raw[at.offset : at.offset + at.size]).hexdigest() == sha


def test_the_pack_of_everything_is_hashed_with_the_scan(tmp_path: Path) -> None:
    """Large ones are read in pieces; of contents that are there twice, large or small, one is in the pack."""
    large = [bytes([i]) * ((1 << 20) + 1 + i) for i in range(3)]
    tree = {"a": b"1", "b": large[0], "c": large[1], "d": large[0], "e": b"1", "f": b"", "g": large[2], "h": large[1]}
    with Folder(fill(tmp_path, tree)) as folder:
        for held in (0, 64 << 20):
            found = scan(folder, Bounds(held=held), together=True)
            pack = make_pack(folder, found, list(found.contents))
            assert pack is not None
            wanted = b"1" + large[0] + large[1] + large[2]
            assert b"".join(pack.chunks()) == wanted
            assert pack.sha256 == found.together == hashlib.sha256(wanted).hexdigest()
            part = make_pack(folder, found, list(found.contents)[1:])
            assert part is not None
            assert part.sha256 == hashlib.sha256(wanted[1:]).hexdigest()


def test_equal_trees_give_equal_packs(tmp_path: Path) -> None:
    packs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        fill(tmp_path / name, {"b": b"2", "a": b"1", "c/d": b"1"})
        with Folder(tmp_path / name) as folder:
            found = scan(folder)
            pack = make_pack(folder, found, list(found.contents))
            assert pack is not None
            packs.append((pack.sha256, b"".join(pack.chunks())))
    assert packs[0] == packs[1] == (hashlib.sha256(b"12").hexdigest(), b"12")


def test_a_file_that_changed_after_the_scan_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, {"a": b"before"})
    with Folder(tmp_path) as folder:
        found = scan(folder, Bounds(held=0))
        (tmp_path / "a").write_bytes(b"behind")
        with pytest.raises(HeadwayError) as caught:
            make_pack(folder, found, list(found.contents))
        assert caught.value.code == "build.output_invalid"
        (tmp_path / "a").unlink()
        (tmp_path / "a").symlink_to("/etc/passwd")
        with pytest.raises(HeadwayError) as caught:
            make_pack(folder, found, list(found.contents))
        assert caught.value.code == "build.output_invalid"


def test_nobody_can_ask_for_contents_that_are_not_there(tmp_path: Path) -> None:
    with Folder(tmp_path) as folder, pytest.raises(HeadwayError):
        make_pack(folder, scan(folder), ["0" * 64])


def exported(manifest: Manifest, bodies: dict[str, bytes]) -> Iterator[bytes]:
    return export_tar(manifest, lambda sha, _size: iter([bodies[sha]]))


def test_an_export_unpacks_to_the_tree(tmp_path: Path) -> None:
    body = os.urandom(1000)
    sha = hashlib.sha256(body).hexdigest()
    deep = "/".join(["folder-with-a-name"] * 10) + "/é.html"
    manifest = make_manifest([File(deep, "755", 1000, sha), File("a", "644", 1000, sha), Link("l", "a")])
    first = b"".join(exported(manifest, {sha: body}))
    assert first == b"".join(exported(manifest, {sha: body}))
    with tarfile.open(fileobj=io.BytesIO(first), mode="r:") as tar:
        tar.extractall(tmp_path, filter="data")
        assert {member.mtime for member in tar} == {0}
    assert (tmp_path / deep).read_bytes() == body
    assert (tmp_path / deep).stat().st_mode & 0o777 == 0o755
    assert os.readlink(tmp_path / "l") == "a"
    packed = b"".join(export_zst(manifest, lambda _sha, _size: iter([body])))
    with zstandard.ZstdDecompressor().stream_reader(packed) as reader:
        assert reader.read() == first


def test_an_export_of_a_short_content_fails() -> None:
    manifest = make_manifest([File("a", "644", 2, hashlib.sha256(b"12").hexdigest())])
    with pytest.raises(HeadwayError) as caught:
        list(exported(manifest, {hashlib.sha256(b"12").hexdigest(): b"1"}))
    assert caught.value.code == "roll.verify_failed"
