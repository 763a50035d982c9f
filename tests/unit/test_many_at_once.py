"""What several builds of one builder write at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from adapters.blobs import Blob, BlobTable
from adapters.sandbox import certificates


def test_builds_of_one_site_remember_its_blobs_at_once(tmp_path: Path) -> None:
    table = BlobTable(tmp_path)
    blobs = {f"{number:040x}": Blob("ab" * 32, number) for number in range(2000)}
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(table.save, "site_A", blobs) for _ in range(80)]:
            done.result()
    assert table.load("site_A") == blobs
    assert [path.name for path in tmp_path.iterdir()] == ["site_A.blobs"]


def test_authorities_that_a_run_has_mounted_stay_what_they_were(tmp_path: Path) -> None:
    extra = tmp_path / "own.crt"
    extra.write_text("-----ONE-----")
    first = certificates.bundle(tmp_path / "state", [extra])
    assert first is not None
    with first.open() as mounted:
        assert certificates.bundle(tmp_path / "state", [extra]) == first
        assert first.stat().st_ino == Path(f"/proc/self/fd/{mounted.fileno()}").stat().st_ino
        extra.write_text("-----TWO-----")
        certificates.bundle(tmp_path / "state", [extra])
        assert "ONE" in mounted.read()
    assert "TWO" in first.read_text()
