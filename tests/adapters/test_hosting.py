"""Placing artifacts on a host: only what is missing, only what is right, nothing half, nothing lost."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.testing import ActivityEnvironment

from activities.beating import beating
from activities.host import HostActivities
from adapters.artifact.manifest import parse_manifest
from adapters.artifact.rules import HeaderRule, StaticRules
from adapters.artifact.run import RunSettings
from adapters.hosting import ahead, releases
from adapters.hosting.ahead import Ahead
from adapters.hosting.configuration import Configuration
from adapters.hosting.drift import DriftBook
from adapters.hosting.fetch import HttpDownloads
from adapters.hosting.host import PLACES, Host, Limits
from adapters.hosting.layout import HostFolders
from adapters.hosting.releases import digest_of, prune_releases
from adapters.hosting.services import Plan, Services
from adapters.hosting.store import Content, ContentStore
from adapters.hosting.upkeep import Pace, Upkeep
from adapters.objects import ObjectStore
from adapters.router.routes import list_routes
from adapters.runtime.process.driver import ProcessDriver, Setup
from headway.broker import (
    Coming,
    Committed,
    Events,
    Heard,
    HostHello,
    Hostnames,
    Known,
    Parcel,
    Ready,
    RollSpec,
    SealedConfig,
    Turn,
)
from headway.errors import HeadwayError
from temporal.messages import EnvironmentRef, JobRef, Live, RollOrder, Switch, Taken
from tests.adapters.sites import ENV, HOST, ROOT, Machine, Shelf, keep_on, verify
from tests.adapters.weed import open_store, running_weed

OTHER = "env_01OTHEROTHEROTHEROTHER"
SITE = {"index.html": b"<h1>one</h1>", "a/b/c.txt": b"deep", "empty": b"", "big.bin": bytes(range(256)) * 400}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "host")


def tree_of(machine: Machine, digest: str) -> Path:
    return machine.host.folders.trees / digest / "root"


def everything(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir() or path.is_symlink()}


def refused(code: str, work: Callable[[], object]) -> HeadwayError:
    with pytest.raises(HeadwayError) as caught:
        work()
    assert caught.value.code == code
    return caught.value


def content(data: bytes, mode: str = "644") -> Content:
    return Content(hashlib.sha256(data).hexdigest(), len(data), mode)


# placing


def test_a_placed_release_is_made_of_sealed_links(machine: Machine) -> None:
    spec, manifest = machine.shelf.artifact(SITE, links={"l": "a/b"}, executable=frozenset({"a/b/c.txt"}))
    machine.host.place(spec, 1, keep_on)
    root = machine.host.environment(ENV).release(1) / "root"
    assert {name: (root / name).read_bytes() for name in SITE} == SITE
    assert os.readlink(root / "l") == "a/b"
    for name, data in SITE.items():
        found = os.lstat(root / name)
        kept = machine.host.store.path(content(data, "755" if name == "a/b/c.txt" else "644"))
        assert os.path.samestat(found, os.lstat(kept))
        assert stat.S_IMODE(found.st_mode) == (0o555 if name == "a/b/c.txt" else 0o444)
        assert found.st_mtime_ns == 0
        tag = (root / f"{name}.headway-etag").read_text()
        assert tag == f'"{hashlib.sha256(data).hexdigest()}"'
    assert everything(root) == {*SITE, *(f"{name}.headway-etag" for name in SITE), "l"}
    assert digest_of(machine.host.environment(ENV).release(1)) == manifest.digest
    assert machine.host.environment(ENV).live().seq == 0, "placed is not live"
    assert list(machine.host.folders.tmp.iterdir()) == []


def test_a_known_artifact_moves_no_byte(machine: Machine) -> None:
    spec, manifest = machine.shelf.artifact(SITE)
    machine.host.place(spec, 1, keep_on)
    machine.shelf.asked.clear()
    for address in (spec.manifest_url, spec.layout_url, *spec.packs.values()):
        del machine.shelf.objects[address]
    promoted = spec.model_copy(update={"env_id": OTHER})
    machine.host.place(promoted, 7, keep_on)
    machine.host.place(promoted, 7, keep_on)
    assert machine.shelf.asked == []
    assert digest_of(machine.host.environment(OTHER).release(7)) == manifest.digest


def test_what_goes_back_is_placed_beside_all_that_comes(machine: Machine) -> None:
    spec, _ = machine.shelf.artifact(SITE)

    def stop() -> None:
        raise HeadwayError("job.canceled", "it was waiting")

    for _ in range(PLACES):
        machine.host._places.acquire()
    refused("job.canceled", lambda: machine.host.place(spec, 1, stop))
    assert not machine.host.trees.exists(spec.digest)
    machine.host.place(spec.model_copy(update={"kind": "rollback"}), 2, keep_on)
    machine.host._places.release()
    machine.host.place(spec, 3, keep_on)


def test_only_what_is_missing_is_fetched_and_neighbours_together(machine: Machine) -> None:
    files = {f"{number:03}.txt": b"%d" % number * 2_000 for number in range(100)}
    machine.host.place(machine.shelf.artifact(files)[0], 1, keep_on)
    files |= {f"{number:03}.txt": b"new %d" % number * 300 for number in range(40, 50)}
    spec, manifest = machine.shelf.artifact(files)
    machine.shelf.asked.clear()
    machine.host.place(spec, 3, keep_on)
    changed = sum(len(files[f"{number:03}.txt"]) for number in range(40, 50))
    assert [length for _, _, length in machine.shelf.asked] == [changed]
    assert (tree_of(machine, manifest.digest) / "045.txt").read_bytes() == files["045.txt"]


def test_one_content_in_both_modes_is_fetched_once_and_kept_twice(machine: Machine) -> None:
    spec, manifest = machine.shelf.artifact({"run": b"#!", "text": b"#!", "copy": b"#!"}, executable=frozenset({"run"}))
    machine.host.place(spec, 1, keep_on)
    assert len(machine.shelf.asked) == 1
    root = tree_of(machine, manifest.digest)
    assert os.access(root / "run", os.X_OK)
    assert stat.S_IMODE((root / "text").stat().st_mode) == 0o444
    assert (root / "text").samefile(root / "copy")


def test_far_apart_contents_are_asked_apart(machine: Machine) -> None:
    files = {"a": os.urandom(1_000), "b": os.urandom(600_000), "c": os.urandom(1_000)}
    spec, _ = machine.shelf.artifact(files)
    machine.host.store.put(content(files["b"]), [files["b"]])
    machine.host.place(spec, 1, keep_on)
    assert sorted(length for _, _, length in machine.shelf.asked) == [1_000, 1_000]


def test_many_threads_place_the_same_at_once(machine: Machine) -> None:
    spec, manifest = machine.shelf.artifact(SITE)
    with ThreadPoolExecutor(8) as pool:
        envs = [f"env_01RACE{number:04}" for number in range(8)]
        list(pool.map(lambda env: machine.host.place(spec.model_copy(update={"env_id": env}), 1, keep_on), envs))
    assert {digest_of(machine.host.environment(env).release(1)) for env in envs} == {manifest.digest}
    assert os.listdir(machine.host.folders.tmp) == []
    assert (tree_of(machine, manifest.digest) / "index.html").read_bytes() == SITE["index.html"]


# what is not right


def test_a_signature_that_does_not_hold_places_nothing(machine: Machine) -> None:
    machine.deploy({"index.html": b"good"})
    spec, manifest = machine.shelf.artifact(SITE)
    machine.shelf.objects[spec.bundle_url] = b"signed by somebody else"
    refused("artifact.signature_invalid", lambda: machine.host.place(spec, 3, keep_on))
    del machine.shelf.objects[spec.bundle_url]
    refused("artifact.signature_invalid", lambda: machine.host.place(spec, 3, keep_on))
    assert not machine.host.trees.exists(manifest.digest)
    assert machine.host.environment(ENV).live().seq == 1


def test_the_signature_is_asked_for_again_when_a_known_artifact_comes_back(machine: Machine) -> None:
    spec, _ = machine.shelf.artifact(SITE)
    machine.host.place(spec, 1, keep_on)
    machine.shelf.objects[spec.bundle_url] = b"revoked"
    refused("artifact.signature_invalid", lambda: machine.host.place(spec, 3, keep_on))
    assert not machine.host.environment(ENV).release(3).exists()


def test_one_flipped_byte_in_a_pack_is_found_and_a_later_try_goes_on(machine: Machine) -> None:
    spec, manifest = machine.shelf.artifact(SITE)
    address = next(iter(spec.packs.values()))
    good = machine.shelf.objects[address]
    machine.shelf.objects[address] = good[:-1] + bytes([good[-1] ^ 1])
    error = refused("roll.verify_failed", lambda: machine.host.place(spec, 1, keep_on))
    assert not error.retryable
    assert not machine.host.trees.exists(manifest.digest)
    assert not machine.host.store.holds(content(SITE["big.bin"]))
    assert os.listdir(machine.host.folders.tmp) == []
    machine.shelf.objects[address] = good
    machine.host.place(spec, 1, keep_on)
    assert (tree_of(machine, manifest.digest) / "big.bin").read_bytes() == SITE["big.bin"]


def test_a_manifest_that_is_not_the_signed_one(machine: Machine) -> None:
    spec, _ = machine.shelf.artifact(SITE)
    other, _ = machine.shelf.artifact({"index.html": b"evil"})
    machine.shelf.objects[spec.manifest_url] = machine.shelf.objects[other.manifest_url]
    refused("roll.verify_failed", lambda: machine.host.place(spec, 1, keep_on))


def test_a_manifest_that_was_damaged_on_this_host_is_fetched_again(machine: Machine) -> None:
    spec, manifest = machine.shelf.artifact(SITE)
    machine.host.place(spec, 1, keep_on)
    (machine.host.folders.trees / manifest.digest / "manifest.json").write_bytes(b"{}")
    machine.host.place(spec, 3, keep_on)
    assert digest_of(machine.host.environment(ENV).release(3)) == manifest.digest


def test_layouts_that_do_not_fit(machine: Machine) -> None:
    spec, _ = machine.shelf.artifact(SITE)
    other, _ = machine.shelf.artifact({"x": b"y"})
    good = machine.shelf.objects[spec.layout_url]
    for bad in (b"{", machine.shelf.objects[other.layout_url], good.replace(b",102400]", b",99]")):
        machine.shelf.objects[spec.layout_url] = bad
        refused("roll.verify_failed", lambda: machine.host.place(spec, 1, keep_on))
    machine.shelf.objects[spec.layout_url] = good
    refused("roll.verify_failed", lambda: machine.host.place(spec.model_copy(update={"packs": {}}), 1, keep_on))


def test_what_the_object_store_has_lost(machine: Machine) -> None:
    spec, _ = machine.shelf.artifact(SITE)
    address = next(iter(spec.packs.values()))
    pack = machine.shelf.objects.pop(address)
    refused("artifact.collected", lambda: machine.host.place(spec, 1, keep_on))
    machine.shelf.objects[address] = pack[: len(pack) // 2]
    assert refused("roll.place_failed", lambda: machine.host.place(spec, 1, keep_on)).retryable


def test_the_disk_floor_refuses_early_and_lets_known_artifacts_pass(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "host")
    known, _ = machine.shelf.artifact(SITE)
    machine.host.place(known, 1, keep_on)
    machine.host.environment(ENV).switch(1)
    full = Host(HostFolders(tmp_path / "host"), verify, machine.shelf, Limits(floor=1 << 60))
    fresh, _ = machine.shelf.artifact({"index.html": b"fresh"})
    machine.shelf.asked.clear()
    assert refused("roll.disk_floor", lambda: full.place(fresh, 3, keep_on)).retryable
    assert machine.shelf.asked == []
    full.place(known, 3, keep_on)
    assert full.environment(ENV).switch(3).seq == 3, "a rollback works on a full disk"


def test_a_cancel_leaves_nothing_to_be_seen(machine: Machine) -> None:
    spec, manifest = machine.shelf.artifact(SITE)
    for allowed in range(3):
        left = allowed

        def stop() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            machine.host.place(spec, 1, stop)
        assert not machine.host.trees.exists(manifest.digest)
        assert not machine.host.environment(ENV).env.exists()
        assert os.listdir(machine.host.folders.tmp) == []


def test_a_late_place_is_refused(machine: Machine) -> None:
    spec, _ = machine.shelf.artifact(SITE)
    machine.host.environment(ENV).fence(4)
    refused("roll.stale", lambda: machine.host.place(spec, 3, keep_on))
    machine.host.place(spec, 5, keep_on)


def test_a_second_try_that_places_the_same_takes_nothing_of_the_first(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, _ = machine.shelf.artifact(SITE)
    release, build = machine.host.environment(ENV).release(1), releases._build

    def overtaken(*given: object) -> None:
        monkeypatch.setattr(releases, "_build", build)
        machine.host.place(spec, 1, keep_on)
        (release / "instances.json").write_text("{}")
        machine.host.environment(ENV).switch(1)
        build(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(releases, "_build", overtaken)
    machine.host.place(spec, 1, keep_on)
    assert (release / "instances.json").exists()
    assert [path.name for path in machine.host.folders.tmp.iterdir()] == []


@pytest.mark.parametrize("broken", ["link", "symlink", "mkdir"])
def test_a_disk_that_fills_up_on_the_way_is_named(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    spec, manifest = machine.shelf.artifact(SITE, links={"l": "index.html"})

    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, broken, full)
        assert refused("roll.disk_floor", lambda: machine.host.place(spec, 1, keep_on)).retryable
    assert not machine.host.environment(ENV).release(1).exists()
    machine.host.place(spec, 1, keep_on)
    assert digest_of(machine.host.environment(ENV).release(1)) == manifest.digest


def test_a_content_with_as_many_links_as_there_may_be_is_copied(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, manifest = machine.shelf.artifact(SITE, executable=frozenset({"index.html"}))

    def exhausted(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EMLINK, "Too many links")

    monkeypatch.setattr(os, "link", exhausted)
    machine.host.place(spec, 1, keep_on)
    found = tree_of(machine, manifest.digest) / "index.html"
    assert found.read_bytes() == SITE["index.html"]
    assert stat.S_IMODE(found.stat().st_mode) == 0o555
    assert found.stat().st_mtime_ns == 0


def test_an_environment_that_would_be_a_path_is_refused(machine: Machine) -> None:
    spec, _ = machine.shelf.artifact(SITE, env_id="../../elsewhere")
    refused("internal.error", lambda: machine.host.place(spec, 1, keep_on))


PLACE = """
import sys
from pathlib import Path
from tests.adapters.sites import Machine, keep_on
machine = Machine(Path(sys.argv[1]))
files = {f"{n:04}.txt": (b"%d" % n) * 50 for n in range(600)}
spec, _ = machine.shelf.artifact(files)
print("ready", flush=True)
machine.host.place(spec, 1, keep_on)
"""


def test_kills_in_the_middle_of_placing_leave_nothing_half(tmp_path: Path) -> None:
    chance = random.Random(11)
    machine = Machine(tmp_path / "host")
    files = {f"{n:04}.txt": (b"%d" % n) * 50 for n in range(600)}
    spec, manifest = machine.shelf.artifact(files)
    for _ in range(3):
        command = [sys.executable, "-c", PLACE, str(tmp_path / "host")]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as one:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0.0, 0.2))
            one.kill()
        if machine.host.trees.exists(manifest.digest):
            assert len(everything(tree_of(machine, manifest.digest))) == 1_200
    machine.host.place(spec, 1, keep_on)
    root = tree_of(machine, manifest.digest)
    assert len(everything(root)) == 1_200
    assert all((root / name).read_bytes() == data for name, data in files.items())


# keeping and forgetting


def test_old_releases_go_and_live_warm_queued_and_shared_ones_stay(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "host", Limits(keep=2, floor=0))
    digests = {}
    for number in range(1, 7):
        seq = machine.deploy({"index.html": b"release %d" % number})
        digests[number] = digest_of(machine.host.environment(ENV).release(seq))
    machine.host.environment(ENV).undo(7, 2)
    queued, manifest = machine.shelf.artifact({"index.html": b"queued"})
    machine.host.place(queued, 9, keep_on)
    shared, _ = machine.shelf.artifact({"index.html": b"release 1"}, env_id=OTHER)
    machine.host.place(shared, 1, keep_on)
    machine.host.tidy(ENV)
    left = {int(path.name) for path in (machine.host.environment(ENV).env / "r").iterdir()}
    assert left == {2, 6, 9}, "live, warm, queued; 5 is past the two that are kept"
    assert {path.name for path in machine.host.folders.trees.iterdir() if not path.name.startswith(".")} == {
        digests[1],
        digests[2],
        digests[6],
        manifest.digest,
    }
    assert (machine.host.environment(ENV).env / "current/root/index.html").read_bytes() == b"release 2"
    assert (machine.host.environment(OTHER).release(1) / "root/index.html").read_bytes() == b"release 1"
    assert os.listdir(machine.host.folders.tmp) == []


def test_the_same_artifact_many_times_counts_once(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "host", Limits(keep=3, floor=0))
    for number in (1, 2, 3, 3, 3, 3, 3):
        machine.deploy({"index.html": b"release %d" % number})
    machine.host.tidy(ENV)
    kept = {digest_of(path) for path in (machine.host.environment(ENV).env / "r").iterdir()}
    assert len(kept) == 3


def test_contents_go_with_their_last_tree_once_their_time_is_over(machine: Machine) -> None:
    machine.deploy({"a": b"only in one", "b": b"in both"})
    machine.deploy({"b": b"in both"})
    assert prune_releases(machine.host.folders, ENV, 1) == [], "what was live before stays warm"
    machine.deploy({"b": b"in both", "c": b"third"})
    assert prune_releases(machine.host.folders, ENV, 1) == [1]
    machine.host.collect()
    assert machine.host.store.holds(content(b"only in one")), "not before its hour is over"
    machine.host.collect(grace=0)
    assert not machine.host.store.holds(content(b"only in one"))
    assert machine.host.store.holds(content(b"in both"))


def test_nothing_is_collected_while_somebody_makes_a_release(machine: Machine) -> None:
    spec, manifest = machine.shelf.artifact(SITE)
    machine.host.place(spec, 1, keep_on)
    machine.host.retire(ENV)
    with machine.host.trees.in_use():
        machine.host.collect()
        assert machine.host.trees.exists(manifest.digest)
    machine.host.collect()
    assert not machine.host.trees.exists(manifest.digest)


def test_contents_that_vanish_between_fetch_and_link_are_fetched_again(machine: Machine) -> None:
    spec, manifest = machine.shelf.artifact(SITE)
    calls = 0

    def collect_once() -> None:
        nonlocal calls
        calls += 1
        if machine.host.store.holds(content(SITE["big.bin"])) and calls < 100:
            calls = 100
            machine.host.store.path(content(SITE["big.bin"])).unlink()

    machine.host.place(spec, 1, collect_once)
    assert calls >= 100
    assert (tree_of(machine, manifest.digest) / "big.bin").read_bytes() == SITE["big.bin"]


def test_debris_of_killed_processes_is_swept_when_it_is_old(machine: Machine) -> None:
    machine.deploy({"index.html": b"1"})
    (machine.host.folders.tmp / "tree-abc").mkdir()
    (machine.host.folders.tmp / "trash-abc").mkdir()
    env = machine.host.environment(ENV).env
    (env / ".0a1b2c").symlink_to("r/1")
    machine.host.tidy(ENV)
    assert os.listdir(machine.host.folders.tmp) == ["tree-abc"]
    assert not os.path.lexists(env / ".0a1b2c")


def test_a_retired_environment_is_gone_and_others_are_not(machine: Machine) -> None:
    machine.host.route(ENV, [HOST, "alias.example"])
    machine.host.route(OTHER, ["other.localhost"])
    machine.deploy(SITE)
    machine.deploy(SITE, env_id=OTHER)
    machine.host.retire(ENV)
    machine.host.retire(ENV)
    assert list_routes(machine.host.folders.routes) == {"other.localhost": OTHER}
    env = machine.host.environment(ENV)
    assert env.live().seq == 0
    assert sorted(os.listdir(env.env)) == ["fence", "lock"]
    spec, _ = machine.shelf.artifact(SITE)
    refused("roll.stale", lambda: machine.host.place(spec, 9, keep_on))
    refused("roll.stale", lambda: env.switch(9))
    assert (machine.host.environment(OTHER).env / "current/root/index.html").read_bytes() == SITE["index.html"]


def test_retiring_what_never_was_here(machine: Machine) -> None:
    machine.host.retire("env_01NEVERNEVERNEVER")
    assert os.listdir(machine.host.folders.environments) == []


# scrub and repair


def test_a_scrub_finds_what_changed_and_a_repair_fetches_it_again(machine: Machine) -> None:
    spec, manifest = machine.shelf.artifact(SITE)
    machine.host.place(spec, 1, keep_on)
    assert list(machine.host.store.scrub()) == []
    root = tree_of(machine, manifest.digest)
    edited = root / "index.html"
    edited.chmod(0o644)
    edited.write_bytes(b"<h1>hax</h1>")
    os.utime(edited, ns=(0, 0))
    edited.chmod(0o444)
    assert [path.name[:64] for path in machine.host.store.scrub()] == [content(SITE["index.html"]).sha256]
    (root / "big.bin").unlink()
    (root / "big.bin").write_bytes(b"replaced")
    (root / "added.php").write_bytes(b"<?php")
    (root / "a/new").mkdir()
    (root / "a/b/c.txt").unlink()
    (root / "empty.headway-etag").unlink()
    wrong = machine.host.repair(spec, keep_on)
    assert wrong == ["a/b/c.txt", "a/new", "added.php", "big.bin", "empty.headway-etag", "index.html"]
    assert {name: (root / name).read_bytes() for name in SITE} == SITE
    assert everything(root) == {*SITE, *(f"{name}.headway-etag" for name in SITE)}
    assert machine.host.repair(spec, keep_on) == []
    assert list(machine.host.store.scrub()) == []


@pytest.mark.parametrize("damage", ["write", "touch", "mode", "truncate", "folder", "link"])
def test_a_broken_seal_shows_without_reading(machine: Machine, damage: str) -> None:
    data = b"sealed"
    machine.host.store.put(content(data), [data])
    path = machine.host.store.path(content(data))
    assert machine.host.store.holds(content(data))
    match damage:
        case "write":
            path.write_bytes(b"SEALED")
        case "touch":
            path.touch()
        case "mode":
            path.chmod(0o666)
        case "truncate":
            os.truncate(path, 1)
        case "folder":
            path.unlink()
            path.mkdir()
        case "link":
            path.rename(path.with_name("x"))
            path.symlink_to("x")
    assert not machine.host.store.holds(content(data))
    if damage != "folder":
        machine.host.store.put(content(data), [data])
        assert machine.host.store.holds(content(data))


@pytest.mark.parametrize("given", [b"", b"seale", b"sealed!", b"SEALED", b"x" * 100_000])
def test_the_store_takes_nothing_under_a_wrong_name(tmp_path: Path, given: bytes) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "store").mkdir()
    store = ContentStore(tmp_path / "store", tmp_path / "tmp")
    refused("roll.verify_failed", lambda: store.put(content(b"sealed"), [given]))
    assert not store.holds(content(b"sealed"))
    assert os.listdir(tmp_path / "tmp") == []


def test_contents_are_durable_before_they_have_their_names(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """And are made so side by side: one after the other, thousands wait for the disk thousands of times."""
    durable: set[int] = set()
    threads: set[int] = set()
    named = 0
    fsync, rename = os.fsync, os.rename

    def synced(fd: int) -> None:
        threads.add(threading.get_ident())
        time.sleep(0.002)
        fsync(fd)
        durable.add(os.fstat(fd).st_ino)

    def renamed(source: str, target: str) -> None:
        nonlocal named
        content = f"{os.sep}store{os.sep}" in str(target) and not str(target).endswith("-etag")
        assert not content or os.lstat(source).st_ino in durable
        rename(source, target)
        named += content

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    files = {f"{n}.txt": f"content {n}".encode() for n in range(200)}
    spec, _ = machine.shelf.artifact(files)
    machine.host.place(spec, 1, keep_on)
    assert named == len(files)
    assert len(threads) > 4


def test_what_arrived_before_a_broken_content_is_kept(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "store").mkdir()
    store = ContentStore(tmp_path / "store", tmp_path / "tmp")

    def work() -> None:
        with store.intake() as intake:
            intake.put(content(b"whole"), [b"whole"])
            intake.put(content(b"other"), [b"broken"])

    refused("roll.verify_failed", work)
    assert store.holds(content(b"whole"))
    assert os.listdir(tmp_path / "tmp") == []


# over HTTP, from a real object store


@pytest.fixture(scope="module")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with running_weed(tmp_path_factory.mktemp("weed")) as endpoint:
        store = open_store(endpoint)
        store.ensure_bucket()
        yield store


@pytest.fixture
def downloads() -> Iterator[HttpDownloads]:
    downloads = HttpDownloads()
    yield downloads
    downloads.close()


def over_http(shelf: Shelf, spec: RollSpec, store: ObjectStore) -> RollSpec:
    """The same artifact, from presigned addresses."""

    def put(address: str) -> str:
        key = f"test/{hashlib.sha256(address.encode()).hexdigest()}"
        data = shelf.objects[address]
        store.put_new(key, data, hashlib.sha256(data).hexdigest())
        return store.presign_get(key, 60)

    return spec.model_copy(
        update={
            "manifest_url": put(spec.manifest_url),
            "layout_url": put(spec.layout_url),
            "bundle_url": put(spec.bundle_url),
            "packs": {sha: put(address) for sha, address in spec.packs.items()},
        }
    )


def test_from_a_real_object_store(tmp_path: Path, weed: ObjectStore, downloads: HttpDownloads) -> None:
    shelf = Shelf()
    host = Host(HostFolders(tmp_path / "host"), verify, downloads, Limits(floor=0))
    files = {**SITE, **{f"{n}.txt": os.urandom(20_000) for n in range(50)}}
    spec, manifest = shelf.artifact(files)
    host.place(over_http(shelf, spec, weed), 1, keep_on)
    root = host.trees.folder(manifest.digest) / "root"
    assert all((root / name).read_bytes() == data for name, data in files.items())
    files |= {"7.txt": b"seven", "40.txt": os.urandom(300_000)}
    spec, manifest = shelf.artifact(files)
    host.place(over_http(shelf, spec, weed), 3, keep_on)
    root = host.trees.folder(manifest.digest) / "root"
    assert all((root / name).read_bytes() == data for name, data in files.items())


def test_answers_of_the_object_store(weed: ObjectStore, downloads: HttpDownloads) -> None:
    data = os.urandom(10_000)
    weed.put_new("test/answers", data, hashlib.sha256(data).hexdigest())
    url = weed.presign_get("test/answers", 60)
    assert downloads.read(url, 10_000) == data
    assert b"".join(downloads.range(url, 100, 50)) == data[100:150]
    refused("roll.verify_failed", lambda: downloads.read(url, 9_999))
    refused("roll.place_failed", lambda: list(downloads.range(url, 9_990, 50)))
    refused("artifact.collected", lambda: downloads.read(weed.presign_get("test/none", 60), 10))
    error = refused("roll.place_failed", lambda: downloads.read(url.replace("Signature=", "Signature=0"), 10))
    assert error.retryable
    away = refused("roll.place_failed", lambda: downloads.read("http://127.0.0.1:9/x?X-Amz-Signature=secret", 10))
    assert "secret" not in str(away)


# as activities


class FakeBroker:
    """`gate`: what the point of no return answers; `passed`: who came to it."""

    def __init__(self, *specs: RollSpec) -> None:
        self.specs = {spec.rollout_id: spec for spec in specs}
        self.gate: HeadwayError | None = None
        self.passed: list[str] = []
        self.heard: list[Ready | None] = []
        self.busy: HeadwayError | None = None
        self.has_run = False
        self.early = 0
        self.coming_next: list[Parcel] = []
        self.redirects: dict[str, str] = {}

    def commit(self, rollout_id: str) -> Committed:
        self.passed.append(rollout_id)
        if self.gate is not None:
            raise self.gate
        return Committed(rollout_id=rollout_id)

    def append(self, job_id: str, events: Events, *, patience: float | None = None) -> Heard:  # noqa: ARG002
        return Heard(cancel=False)

    def get_config(self, rollout_id: str) -> SealedConfig:
        raise HeadwayError("deployment.not_found", f"{rollout_id} has no configuration here")

    def hello(self, host_id: str, hello: HostHello, *, patience: float | None = None) -> Known:  # noqa: ARG002
        return Known(host_id=host_id, labels=hello.labels)

    def get_rollout(self, rollout_id: str, ready: Ready | None = None) -> RollSpec:
        self.heard.append(ready)
        if rollout_id not in self.specs:
            raise HeadwayError("deployment.not_found", "no such rollout")
        spec = self.specs[rollout_id]
        if ready is None or ready.digest != spec.digest:
            return spec
        self.commit(rollout_id)
        return spec.model_copy(update={"committed": True})

    def take(self, job_id: str, ready: Ready | None = None, *, early: bool = False) -> Turn:
        self.early += early
        if early and not self.has_run:
            return Turn()
        if self.busy is not None:
            raise self.busy
        spec = next((one for one in self.specs.values() if one.job_id == job_id), None)
        return Turn(spec=spec and self.get_rollout(spec.rollout_id, ready))

    def coming(self, host_id: str) -> Coming:  # noqa: ARG002
        told, self.coming_next = self.coming_next, []
        return Coming(parcels=told)

    def get_hostnames(self, env_id: str) -> Hostnames:
        return Hostnames(env_id=env_id, hostnames=[HOST, *self.redirects], redirects=self.redirects)


def order(spec: RollSpec, apply_seq: int) -> RollOrder:
    return RollOrder(spec.job_id, spec.rollout_id, "deploy", spec.env_id, ("local",), apply_seq, apply_seq + 1)


def activities_on(machine: Machine, broker: FakeBroker, ahead: Ahead | None = None) -> HostActivities:
    """As the worker makes them, but for the loop that looks by itself."""
    folders = machine.host.folders
    services = Services(folders, ProcessDriver(Setup(state=folders.root / "run")))
    configuration = Configuration("local", folders.identity, broker)
    upkeep = Upkeep(folders, services, Pace(), DriftBook(folders.root / "drifts"))
    return HostActivities("local", machine.host, broker, services, configuration, upkeep, ahead=ahead)


def test_a_roll_on_one_host_passes_the_gate_before_it_switches(machine: Machine) -> None:
    one, _ = machine.shelf.artifact(SITE, rollout="roll_one")
    two, _ = machine.shelf.artifact({"index.html": b"two"}, rollout="roll_two")
    broker = FakeBroker(one, two)
    activities = activities_on(machine, broker)
    run = ActivityEnvironment()
    run.run(activities.route, EnvironmentRef(ENV))
    assert run.run(activities.roll, order(one, 1)).seq == 1
    broker.gate = HeadwayError("job.canceled", "a cancel came first")
    with pytest.raises(ApplicationError) as caught:
        run.run(activities.roll, order(two, 3))
    assert caught.value.type == "job.canceled"
    assert run.run(activities.live, EnvironmentRef(ENV)).seq == 1
    broker.gate = None
    live = run.run(activities.roll, order(two, 3))
    assert (live.seq, live.previous) == (3, 1)
    assert run.run(activities.roll, order(two, 3)) == live
    assert broker.passed == ["roll_one", "roll_two", "roll_two", "roll_two"]
    activities.close()


def test_a_host_that_was_ready_asks_once_and_switches(machine: Machine) -> None:
    one, _ = machine.shelf.artifact(SITE, rollout="roll_one")
    two, _ = machine.shelf.artifact({"index.html": b"two"}, rollout="roll_two")
    broker = FakeBroker(one, two)
    ahead = Ahead("local", machine.host, broker)
    activities = activities_on(machine, broker, ahead)
    run = ActivityEnvironment()
    run.run(activities.route, EnvironmentRef(ENV))

    def tell(spec: RollSpec) -> None:
        broker.coming_next = [Parcel(**{name: getattr(spec, name) for name in Parcel.model_fields})]
        ahead.look()
        deadline = time.monotonic() + 30
        while ahead.ready(spec.job_id) is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    tell(one)
    assert run.run(activities.roll, order(one, 1)).seq == 1
    assert (broker.passed, len(broker.heard), broker.heard[0] is None) == (["roll_one"], 1, False)
    tell(two)
    broker.gate = HeadwayError("job.canceled", "a cancel came first")
    with pytest.raises(ApplicationError) as caught:
        run.run(activities.roll, order(two, 3))
    assert caught.value.type == "job.canceled"
    assert run.run(activities.live, EnvironmentRef(ENV)).seq == 1
    broker.gate = None
    # Of several hosts none is committed by itself, however ready it is.
    tell(two)
    run.run(activities.prepare, order(two, 5))
    assert broker.heard[-1] is None
    activities.close()


def test_a_rollout_is_taken_up_without_an_order(machine: Machine) -> None:
    one, _ = machine.shelf.artifact(SITE, rollout="roll_one")
    one = one.model_copy(update={"job_id": "job_one", "apply_seq": 1, "undo_seq": 2})
    two, _ = machine.shelf.artifact({"index.html": b"two"}, rollout="roll_two")
    two = two.model_copy(update={"job_id": "job_two", "apply_seq": 3, "undo_seq": 4})
    broker = FakeBroker(one, two)
    ahead = Ahead("local", machine.host, broker)
    activities = activities_on(machine, broker, ahead)
    run = ActivityEnvironment()
    run.run(activities.route, EnvironmentRef(ENV))
    assert run.run(activities.take, JobRef("job_none")) == Taken()
    taken = run.run(activities.take, JobRef("job_one"))
    assert taken == Taken("roll_one", Live("local", ENV, 1, 0))
    assert (broker.passed, broker.heard) == (["roll_one"], [None])
    broker.coming_next = [Parcel(**{name: getattr(two, name) for name in Parcel.model_fields})]
    ahead.look()
    deadline = time.monotonic() + 30
    while ahead.ready("job_two") is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    broker.busy = HeadwayError("service.unavailable", "the broker is away")
    assert run.run(activities.take, JobRef("job_two")) == Taken(), "why, its run hears by itself"
    broker.busy = None
    assert run.run(activities.take, JobRef("job_two")).live == Live("local", ENV, 3, 1)
    assert (broker.passed, broker.heard[-1] is None) == (["roll_one", "roll_two"], False)
    assert broker.early == 1, "it had asked before, when there was no run"
    # A cancel that came before the point of no return is its verdict; what was live still is.
    three, _ = machine.shelf.artifact({"index.html": b"three"}, rollout="roll_three")
    broker.specs["roll_three"] = three.model_copy(update={"job_id": "job_three", "apply_seq": 5, "undo_seq": 6})
    broker.gate = HeadwayError("job.canceled", "a cancel came first")
    with pytest.raises(ApplicationError) as caught:
        run.run(activities.take, JobRef("job_three"))
    assert (caught.value.type, caught.value.non_retryable) == ("job.canceled", True)
    assert run.run(activities.live, EnvironmentRef(ENV)).seq == 3
    activities.close()


def test_what_was_given_up_meanwhile_is_not_taken(machine: Machine) -> None:
    one, _ = machine.shelf.artifact(SITE, rollout="roll_one")
    activities = activities_on(machine, FakeBroker(one))
    run = ActivityEnvironment()
    for late, taken in ((timedelta(seconds=6), False), (timedelta(), True)):
        started = datetime.now(UTC) - late
        run.info = replace(run.info, started_time=started, heartbeat_timeout=timedelta(seconds=5))
        assert (run.run(activities.take, JobRef(one.job_id)).live is not None) is taken
    activities.close()


def test_what_lies_ready_is_shown_once_its_run_exists_and_the_activity_joins_it(machine: Machine) -> None:
    one, _ = machine.shelf.artifact(SITE, rollout="roll_one")
    one = one.model_copy(update={"job_id": "job_one", "apply_seq": 1, "undo_seq": 2})
    broker = FakeBroker(one)
    broker.has_run = True
    ahead = Ahead("local", machine.host, broker)
    activities = activities_on(machine, broker, ahead)
    run = ActivityEnvironment()
    broker.coming_next = [Parcel(**{name: getattr(one, name) for name in Parcel.model_fields})]
    ahead.look()
    deadline = time.monotonic() + 30
    while machine.host.environment(ENV).live().seq != 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert list_routes(machine.host.folders.routes) == {HOST: ENV}
    assert run.run(activities.take, JobRef("job_one")) == Taken("roll_one", Live("local", ENV, 1, 0))
    assert (len(broker.heard), broker.passed, broker.early) == (1, ["roll_one"], 1), "asked once"
    # An activity that comes again, or to another process, goes by what the broker says.
    assert run.run(activities.take, JobRef("job_one")) == Taken("roll_one", Live("local", ENV, 1, 0))
    assert broker.early == 1
    activities.close()


def test_what_is_to_be_tidied_already_is_not_asked_for_again(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, begun, tidied = threading.Event(), threading.Event(), []

    def tidy(env_id: str) -> None:
        begun.set()
        assert goes_on.wait(30)
        tidied.append(env_id)

    monkeypatch.setattr(machine.host, "tidy", tidy)
    activities = activities_on(machine, FakeBroker())
    activities._tidy(machine.host.tidy, "env_1")
    assert begun.wait(30)
    for env_id in ("env_1", "env_1", "env_2", "env_1"):
        activities._tidy(machine.host.tidy, env_id)
    goes_on.set()
    activities.close()
    assert tidied == ["env_1", "env_1", "env_2"], "once more for what came after it had begun"


@pytest.mark.parametrize("new", [True, False])
def test_a_name_that_redirects_still_does_when_something_is_rolled(machine: Machine, new: bool) -> None:
    spec, _ = machine.shelf.artifact(SITE, rollout="roll_one")
    spec = spec.model_copy(update={"hostnames": [HOST, "old.test"]})
    broker = FakeBroker(spec)
    broker.redirects = {"old.test": "https://new.test"}
    activities = activities_on(machine, broker)
    run = ActivityEnvironment()
    if not new:
        run.run(activities.route, EnvironmentRef(ENV))
    run.run(activities.roll, order(spec, 1))
    routes = machine.host.folders.routes
    assert os.readlink(routes / HOST) == f"../env/{ENV}"
    assert os.readlink(routes / "old.test") == f"../redirects/{ENV}/https@new.test"
    activities.close()


def test_who_comes_late_leads_no_name_away_from_whose_it_is_now(machine: Machine) -> None:
    late, _ = machine.shelf.artifact(SITE, rollout="roll_late", env_id=OTHER)
    broker = FakeBroker(late)
    activities = activities_on(machine, broker)
    run = ActivityEnvironment()
    run.run(activities.route, EnvironmentRef(OTHER))
    run.run(activities.retire, EnvironmentRef(OTHER))
    run.run(activities.route, EnvironmentRef(ENV))
    with pytest.raises(ApplicationError) as caught:
        run.run(activities.roll, order(late, 1))
    assert caught.value.type == "roll.stale"
    assert list_routes(machine.host.folders.routes) == {HOST: ENV}
    activities.close()


@pytest.mark.parametrize("at_once", [True, False])
def test_what_answered_counts_where_the_broker_answers_at_once(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    spec, manifest = machine.shelf.artifact({"app.py": b"app"}, run=RunSettings("python3 app.py"), rollout="roll_one")
    broker, plan = FakeBroker(spec.model_copy(update={"kind": "rollback"})), Plan(1, manifest.digest, 0, 1)
    broker.has_run = True
    ahead_of = Ahead("local", machine.host, broker)
    activities = activities_on(machine, broker, ahead_of)
    ahead_of.warm = lambda *_: plan
    judged: list[Plan | None] = []
    monkeypatch.setattr(Services, "prepare", lambda *_, **words: judged.append(words["judged"]))

    def passes(rollout_id: str) -> Committed:
        if not at_once:
            monkeypatch.setattr(ahead, "WARM_SECONDS", -1.0)
        return Committed(rollout_id=rollout_id)

    monkeypatch.setattr(broker, "commit", passes)
    about = {name: getattr(spec, name) for name in Parcel.model_fields}
    broker.coming_next = [Parcel(**about | {"hostname": HOST})]
    ahead_of.look()
    ahead_of._pool.shutdown(wait=True)
    assert judged == [plan if at_once else None]
    assert machine.host.environment(ENV).live().seq == 1
    activities.close()


def test_nothing_is_started_before_the_activity_has_come(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, manifest = machine.shelf.artifact({"app.py": b"app"}, run=RunSettings("python3 app.py"), rollout="roll_one")
    broker, asked = FakeBroker(spec.model_copy(update={"kind": "rollback"})), list[str]()
    broker.has_run = True
    ahead_of = Ahead("local", machine.host, broker)
    activities = activities_on(machine, broker, ahead_of)
    ahead_of.warm = lambda *_: Plan(9, manifest.digest, 0, 1)  # and it is let go of just then
    monkeypatch.setattr(Configuration, "place", lambda *_: asked.append("configuration"))
    monkeypatch.setattr(Services, "_start", lambda *_: asked.append("start"))
    about = {name: getattr(spec, name) for name in Parcel.model_fields}
    broker.coming_next = [Parcel(**about | {"hostname": HOST})]
    ahead_of.look()
    ahead_of._pool.shutdown(wait=True)
    assert (broker.passed, asked, machine.host.environment(ENV).live().seq) == (["roll_one"], [], 0)
    taken = ActivityEnvironment().run(activities.take, JobRef(spec.job_id))
    assert (taken.live, asked) == (Live("local", ENV, 1, 0), ["configuration", "start"])
    activities.close()


def test_what_takes_its_time_beats_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activities.beating.BEAT_SECONDS", 0.01)
    told, beats = threading.Event(), threading.Semaphore(0)

    def body() -> None:
        with beating(told.set):
            assert told.wait(30)
            assert all(beats.acquire(timeout=30) for _ in range(3))

    run = ActivityEnvironment()
    run.on_heartbeat = lambda *_: beats.release()
    run.run(body)


@pytest.mark.parametrize(("slow", "told"), [("placing", ["place", "health"]), ("health", ["health"])])
def test_what_is_told_last_is_what_a_roll_is_at(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, slow: str, told: list[str]
) -> None:
    monkeypatch.setattr("activities.beating.BEAT_SECONDS", 0.6)
    spec, _ = machine.shelf.artifact({"app.py": b"app"}, run=RunSettings("python3 app.py"), rollout="roll_one")
    broker, stages = FakeBroker(spec), list[str | None]()

    def hear(_job_id: str, events: Events, **_: object) -> Heard:
        stages.extend(one.stage for one in events.events if one.kind == "stage")
        return Heard(cancel=False)

    def judge(*words: Any, **_: object) -> None:
        story = words[6]
        story.stage("health")
        time.sleep(0.35 if slow == "health" else 0.0)
        story.check()  # tells what waits
        time.sleep(0.6 if slow == "health" else 0.0)

    place = machine.host.place
    monkeypatch.setattr(broker, "append", hear)
    monkeypatch.setattr(Services, "prepare", judge)
    if slow == "placing":
        monkeypatch.setattr(machine.host, "place", lambda *words: (time.sleep(1.0), place(*words))[1])
    activities = activities_on(machine, broker)
    ActivityEnvironment().run(activities.prepare, order(spec, 1))
    activities.close()
    assert stages == told


def test_the_activities_of_a_roll(machine: Machine) -> None:
    one, _ = machine.shelf.artifact(SITE, rollout="roll_one")
    two, manifest = machine.shelf.artifact(
        {"index.html": b"two"}, rollout="roll_two", static=StaticRules(headers=(HeaderRule("/*", {"A": "b"}),))
    )
    activities = activities_on(machine, FakeBroker(one, two))
    run = ActivityEnvironment()
    assert run.run(activities.route, EnvironmentRef(ENV)).seq == 0
    assert list_routes(machine.host.folders.routes) == {HOST: ENV}
    placed = run.run(activities.prepare, order(one, 1))
    assert (placed.host_id, placed.seq, placed.digest) == ("local", 1, one.digest)
    assert run.run(activities.switch, Switch("roll_one", ENV, 1)).seq == 1
    assert run.run(activities.prepare, order(two, 3)).digest == manifest.digest
    live = run.run(activities.switch, Switch("roll_two", ENV, 3))
    assert (live.host_id, live.env_id, live.seq, live.previous) == ("local", ENV, 3, 1)
    assert run.run(activities.switch, Switch("roll_two", ENV, 3)) == live
    assert run.run(activities.undo, Switch("roll_two", ENV, 4, back_to=live.previous)).seq == 1
    assert run.run(activities.live, EnvironmentRef(ENV)).seq == 1
    assert run.run(activities.fence, Switch("roll_two", ENV, 4)).seq == 1
    with pytest.raises(ApplicationError) as caught:
        run.run(activities.switch, Switch("roll_two", ENV, 3))
    assert (caught.value.type, caught.value.non_retryable) == ("roll.stale", True)
    assert run.run(activities.retire, EnvironmentRef(ENV)).seq == 0
    activities.close()
    assert os.listdir(machine.host.folders.routes) == []
    assert not machine.host.trees.exists(manifest.digest)


def test_failures_of_placing_say_whether_a_retry_helps(machine: Machine) -> None:
    spec, _ = machine.shelf.artifact(SITE)
    activities = activities_on(machine, FakeBroker(spec))
    machine.shelf.objects[spec.bundle_url] = b"forged"
    with pytest.raises(ApplicationError) as caught:
        ActivityEnvironment().run(activities.prepare, order(spec, 1))
    assert (caught.value.type, caught.value.non_retryable) == ("artifact.signature_invalid", True)
    activities.close()


def test_a_cancel_ends_placing_between_two_pieces(machine: Machine) -> None:
    spec, manifest = machine.shelf.artifact(SITE)
    activities = activities_on(machine, FakeBroker(spec))
    run = ActivityEnvironment()
    reached, go_on = threading.Event(), threading.Event()
    plain = machine.shelf.range

    def slow(url: str, start: int, length: int) -> Iterator[bytes]:
        for piece in plain(url, start, length):
            reached.set()
            go_on.wait(10)
            yield piece

    machine.shelf.range = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as pool:
        placing = pool.submit(run.run, activities.prepare, order(spec, 1))
        assert reached.wait(10)
        run.cancel()
        go_on.set()
        with pytest.raises(CancelledError):
            placing.result(10)
    activities.close()
    assert not machine.host.trees.exists(manifest.digest)
    assert not machine.host.environment(ENV).release(1).exists()


def test_the_kept_manifest_is_the_signed_one(machine: Machine) -> None:
    spec, manifest = machine.shelf.artifact(SITE, static=StaticRules(spa=True, not_found="a/b/c.txt"))
    machine.host.place(spec, 1, keep_on)
    kept = machine.host.trees.manifest(spec.digest)
    assert kept is not None
    assert parse_manifest(kept, digest=spec.digest) == manifest
    release = machine.host.environment(ENV).release(1)
    assert sorted(os.listdir(release)) == ["@1+", "not_found.html", "root", "spa"]
    assert (release / "not_found.html").read_bytes() == b"deep"
