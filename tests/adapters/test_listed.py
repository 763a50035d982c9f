"""A tree that is published as it is: known contents are not read again, and what comes out is the same to the byte."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from adapters.blobs import Blob, BlobTable, blob_id
from store.models import Build
from tests.adapters.test_produce import Platform, objects, platform  # noqa: F401

KNOWN = "the others are known by git's ids"


def both(platform: Platform, ref: str = "main") -> tuple[str, list[str], Build]:  # noqa: F811
    """Build a ref the short way, if it is taken, and the whole way: the digest, and what the short way has said."""
    digest = platform.build(ref).manifest_sha256
    said, row = platform.log("system"), platform.row
    known = platform.manifest(digest)
    whole = platform.build(ref, clean=True).manifest_sha256
    assert whole == digest
    assert platform.manifest(whole).raw == known.raw
    other = platform.row
    assert (row.source_sha256, row.commit_sha, row.plan) == (other.source_sha256, other.commit_sha, other.plan)
    return digest, said, row


def taken(said: list[str]) -> bool:
    return any(KNOWN in line for line in said)


def test_only_the_change_is_read_and_sent(platform: Platform) -> None:  # noqa: F811
    platform.repo.write({f"d{n % 7}/f{n}.txt": f"{n}" * 1000 for n in range(300)})
    platform.repo.commit({"index.html": "one", "headway.toml": "[static]\nspa = true"})
    first = platform.build()
    assert not taken(platform.log("system"))
    platform.repo.commit({"d1/f1.txt": "changed", "new.txt": "new"})
    _, said, row = both(platform)
    assert any(line.startswith("3 new contents read") for line in said), said
    assert row.uploaded_bytes == len("changed") + len("new") + len(platform.manifest(row.manifest_sha256 or "").raw)
    assert platform.content(row.manifest_sha256 or "", "d1/f1.txt") == b"changed"
    assert platform.content(row.manifest_sha256 or "", "d2/f2.txt") == b"2" * 1000
    # Back to what was there: nothing is new.
    again = platform.build("main~1")
    assert (again.manifest_sha256, again.uploaded_bytes) == (first.manifest_sha256, 0)
    assert taken(platform.log("system"))


@pytest.mark.slow
def test_a_long_manifest_is_sent_compressed(platform: Platform) -> None:  # noqa: F811
    """Of 10,000 files it is 1.3 MB, of which a change of one changes a line."""
    platform.repo.commit({f"d{n % 10}/f{n}.txt": f"{n}" for n in range(1000)})
    platform.build()
    platform.repo.commit({"d1/f1.txt": "changed"})
    output = platform.build()
    raw = platform.manifest(output.manifest_sha256).raw
    assert len(raw) > 100_000
    assert len("changed") < output.uploaded_bytes < len(raw) / 2
    assert platform.build().uploaded_bytes == 0


@pytest.mark.slow
def test_contents_that_the_site_has_lost_are_brought_again(platform: Platform) -> None:  # noqa: F811
    """More changes than an artifact may have packs: what the smallest ones hold is sent anew, out of the mirror."""
    platform.repo.commit({"index.html": "x" * 5000})
    platform.build()
    for number in range(20):
        platform.repo.commit({f"{number}.txt": f"{number}" * (number + 1)})
        digest = platform.build().manifest_sha256
        assert taken(platform.log("system")), number
    assert platform.content(digest, "0.txt") == b"0"
    assert both(platform)[0] == digest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "short"),
    [
        ({"sub/page.html": "x"}, True),
        ({"headway.toml": "[static]\nnot_found = '404.html'", "404.html": "gone"}, True),
        ({"headway.toml": "[build]\noutput = 'public'", "public/index.html": "x"}, True),
        ({"headway.toml": "[build]\nroot = 'web'\ncommand = ''", "web/index.html": "x"}, True),
        # What git would change, and what is built or run, takes the whole way.
        ({".gitattributes": "*.bin filter=lfs"}, False),
        ({"headway.toml": "[build]\ncommand = 'mkdir dist; cp index.html dist'"}, False),
        (
            {"package.json": '{"scripts": {"build": "mkdir dist; cp index.html dist"}}'},
            False,
        ),
        ({"headway.toml": "[build]\ncommand = ''\nwatch = ['a']"}, False),
    ],
)
def test_the_way_is_chosen_by_what_is_there(platform: Platform, files: dict[str, str], short: bool) -> None:  # noqa: F811
    platform.repo.commit({"index.html": "one", "other.txt": "other"})
    platform.build()
    platform.repo.commit(files)
    assert taken(both(platform)[1]) is short


@pytest.mark.slow
@pytest.mark.parametrize(
    "files",
    [
        {"headway.toml": "[static]\nspa = true", "index.html": ""},
        {"headway.toml": "[biuld]"},
        {"headway.toml": "[build]\noutput = 'none'\ncommand = ''"},
        {"headway.toml": "[static]\nnot_found = 'none.html'"},
        {"a\nb": "x"},
    ],
)
def test_what_the_whole_way_refuses_is_refused_in_the_same_words(
    platform: Platform,  # noqa: F811
    files: dict[str, str],
) -> None:
    platform.repo.commit({"index.html": "one", "other.txt": "other"})
    platform.build()
    if files.get("index.html") == "":
        platform.repo.git("rm", "-q", "index.html")
        files = {name: text for name, text in files.items() if text}
    short = platform.failure(files)
    platform.producer = platform.another_builder("second")
    whole = platform.failure({})
    assert (short.type, short.message) == (whole.type, whole.message)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))])
def test_any_history_gives_the_same_manifests(platform: Platform, seed: int) -> None:  # noqa: F811
    chance = random.Random(seed)
    root = platform.repo.path
    names = [f"{'abc'[n % 3]}/{'xyz'[n % 2]}{n}.txt" if n % 4 else f"ü {n}.html" for n in range(24)]
    platform.repo.commit({"index.html": "start"})
    platform.build()
    for _ in range(4):
        for name in chance.sample(names, 8):
            path = root / name
            path.parent.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)
            match chance.randrange(6):
                case 0:
                    path.symlink_to(os.path.relpath(root / "index.html", path.parent))
                case 1:
                    path.write_bytes(chance.randbytes(chance.choice([0, 1, 5000, 1 << 20])))
                case 2:
                    path.write_text("#!/bin/sh\n")
                    path.chmod(0o755)
                case 3 | 4:
                    path.write_text(f"{chance.randrange(4)}")
        platform.repo.commit({})
        both(platform)


def test_a_table_is_what_was_put_there_or_nothing(tmp_path: Path) -> None:
    table = BlobTable(tmp_path, most=2)
    blobs = {blob_id(f"{n}".encode()): Blob(f"{n}" * 64, n) for n in range(3)}
    assert blob_id(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
    table.save("site_a", blobs)
    assert table.load("site_a") == dict(list(blobs.items())[:2])
    assert table.load("site_b") == {}
    (file,) = tmp_path.glob("*.blobs")
    raw = bytearray(file.read_bytes())
    raw[30] ^= 1
    file.write_bytes(raw)
    assert table.load("site_a") == {}
    small = BlobTable(tmp_path, total_bytes=200)
    for number in range(4):
        small.save(f"site_{number}", dict(list(blobs.items())[:1]))
        os.utime(tmp_path / f"site_{number}.blobs", (number, number))
    assert not (tmp_path / "site_0.blobs").exists()
    assert small.load("site_3")
