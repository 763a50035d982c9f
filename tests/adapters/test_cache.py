from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from activities.producing.caching import Exchange
from adapters.cache import BuildCache, cache_key
from adapters.cache_shelf import Shelf
from headway.broker import KeptCache, StoredCache, WantedCache

KEY = "a" * 32


def fill(cache: BuildCache, site: str, key: str, size: int = 10) -> bool:
    with cache.lend(site, key) as cached:
        assert cached is not None
        hit = cached.hit
        (cached.folder / "file").write_bytes(os.urandom(size))
        return hit


def test_what_one_build_leaves_the_next_one_finds(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path)
    assert not fill(cache, "site_a", "k")
    assert fill(cache, "site_a", "k")
    assert not fill(cache, "site_a", "other")
    assert not fill(cache, "site_b", "k")


def test_the_key_is_the_lock_file(tmp_path: Path) -> None:
    keys = {cache_key("package-lock.json", b"1"), cache_key("package-lock.json", b"2"), cache_key("x", b"1")}
    assert len(keys | {cache_key(None, None)}) == 4
    assert cache_key("x", b"1") == cache_key("x", b"1")


def test_a_second_build_at_the_same_time_goes_without(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path)
    with cache.lend("site_a", "k") as first:
        assert first is not None
        found: list[object] = []

        def second() -> None:
            with BuildCache(tmp_path).lend("site_a", "k") as cached:
                found.append(cached)

        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        assert found == [None]
    with cache.lend("site_a", "k") as again:
        assert again is not None


def test_a_folder_that_cannot_be_looked_at_is_dropped(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path)
    with cache.lend("site_a", "k") as cached:
        assert cached is not None
        here = os.open(cached.folder, os.O_RDONLY)
        for _ in range(3000):
            os.mkdir("deep", dir_fd=here)
            below = os.open("deep", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)
    assert not fill(cache, "site_a", "k")


def test_what_killed_builders_left_counts_and_goes(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path, total_bytes=150 << 10)
    for place in ("env_A-ab", "env_A-ab-read"):
        fill(cache, "site_a", place, 10)
    home = tmp_path / "site_a"
    # Killed during a build whose lock file has no other, and while a folder was removed.
    (home / "env_A-ef").mkdir()
    (home / "env_A-ef.lock").touch()
    (home / "env_A-ef" / "file").write_bytes(os.urandom(120 << 10))
    for left in (".removing-env_A-ab-1", ".removing-.removing-env_A-ab-read-12-3"):
        (home / left).mkdir()
    with cache.lend("site_a", "env_A-ab-read") as held:
        assert held is not None
        fill(cache, "site_b", "k", 10)
        assert [path.name for path in home.glob(".removing-*")] == [".removing-.removing-env_A-ab-read-12-3"]
        assert (home / "env_A-ef").exists()
        fill(cache, "site_b", "k", 100 << 10)
        assert not (home / "env_A-ef").exists()
    fill(cache, "site_b", "k", 10)
    assert list(home.glob(".removing-*")) == []


def test_a_folder_that_is_too_large_is_dropped(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path, folder_bytes=64 << 10)
    fill(cache, "site_a", "k", 200 << 10)
    assert not fill(cache, "site_a", "k")
    assert fill(cache, "site_a", "k")


def test_the_longest_unused_goes_first(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path, total_bytes=250 << 10)
    for at, key in enumerate(("one", "two", "three")):
        fill(cache, "site_a", key, 100 << 10)
        os.utime(tmp_path / "site_a" / f"{key}.size", (at, at))
    assert not (tmp_path / "site_a" / "one").exists()
    assert (tmp_path / "site_a" / "two").exists()
    assert (tmp_path / "site_a" / "three").exists()


def test_a_folder_in_use_is_never_collected(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path, total_bytes=150 << 10)
    fill(cache, "site_a", "held", 100 << 10)
    with cache.lend("site_a", "held") as held:
        assert held is not None
        fill(cache, "site_b", "k", 100 << 10)
        assert (held.folder / "file").exists()


def test_declared_folders_go_into_the_tree_and_back(tmp_path: Path) -> None:
    workspace, cached = tmp_path / "w", tmp_path / "c"
    cached.mkdir()
    for name in (".vite", "node_modules/.cache"):
        (workspace / name).mkdir(parents=True)
        (workspace / name / "kept").write_text(name)
    shelf = Shelf(workspace, cached, [".vite", "node_modules/.cache", "never"])
    assert shelf.take() == [".vite", "node_modules/.cache"]
    assert not (workspace / ".vite").exists()
    assert shelf.put(within=False) == [".vite"]
    shutil.rmtree(workspace / "node_modules")
    assert shelf.put(within=True) == ["node_modules/.cache"]
    assert (workspace / "node_modules/.cache/kept").read_text() == "node_modules/.cache"
    assert shelf.put(within=False) == []
    (workspace / ".vite/kept").write_text("newer")
    assert shelf.take() == [".vite", "node_modules/.cache"]
    # What the tree has itself is not replaced.
    (workspace / ".vite").mkdir()
    assert shelf.put(within=False) == []


def test_links_lead_a_declared_folder_nowhere(tmp_path: Path) -> None:
    workspace, cached, outside = tmp_path / "w", tmp_path / "c", tmp_path / "outside"
    for folder in (workspace / "a", cached, outside / "b"):
        folder.mkdir(parents=True)
    (outside / "b/precious").write_text("x")
    shelf = Shelf(workspace, cached, ["a/b"])
    # The way to it, the folder itself, and the place in the cache, each a link that a build has made.
    (workspace / "a").rmdir()
    (workspace / "a").symlink_to(outside)
    assert (shelf.take(), shelf.put(within=False)) == ([], [])
    (workspace / "a").unlink()
    (workspace / "a").mkdir()
    (workspace / "a/b").symlink_to(outside / "b")
    assert shelf.take() == []
    (workspace / "a/b").unlink()
    (workspace / "a/b").mkdir()
    (cached / "folders").symlink_to(outside)
    assert shelf.take() == ["a/b"]
    assert not (cached / "folders").is_symlink()
    assert [path.name for path in outside.rglob("*")] == ["b", "precious"]


def test_what_was_dropped_in_the_object_store_is_dropped_here(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path)
    with cache.lend("site_a", KEY) as cached:
        assert cached is not None
        (cached.folder / "file").write_bytes(b"poison")
        cached.remember("a" * 64)
    for stored, kept in ((StoredCache(sha256="a" * 64, size=6), True), (StoredCache(most=1), False)):
        with cache.lend("site_a", KEY) as cached:
            assert cached is not None
            exchange_with(stored).fill(cache, cached)
            assert cached.hit is kept


def test_what_was_never_sent_is_kept_here(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path)
    fill(cache, "site_a", KEY)
    with cache.lend("site_a", KEY) as cached:
        assert cached is not None
        exchange_with(StoredCache()).fill(cache, cached)
        assert cached.hit


def exchange_with(stored: StoredCache) -> Exchange:
    """Nothing is downloaded: what is stored is what is here, or nothing."""

    class Fixed:
        def find_cache(self, build_id: str, wanted: WantedCache) -> StoredCache:  # noqa: ARG002
            return stored

        def keep_cache(self, build_id: str, kept: KeptCache) -> None:
            raise AssertionError((build_id, kept))

    nothing: Any = None
    spec: Any = SimpleNamespace(build_id="build_x", attempt=1, leaves_cache=True)
    return Exchange(Fixed(), nothing, nothing, spec, lambda: False, lambda _: None)
