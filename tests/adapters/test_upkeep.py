"""What a host puts right by itself, on real folders: `current`, trees, instances; and what it asks others for."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from adapters.artifact.manifest import Manifest
from adapters.artifact.run import RunSettings
from adapters.hosting import upkeep
from adapters.hosting.baking import Bakery, baking_until
from adapters.hosting.drift import Drift, DriftBook, DriftReports
from adapters.hosting.mending import LEAST, MOST, SHARE, Mender, Scrubber
from adapters.hosting.releases import is_suspended, lacks, prune_releases
from adapters.hosting.services import Plan, Services, Story
from adapters.hosting.serving import ServingReports
from adapters.hosting.switch import ReleaseSwitch
from adapters.hosting.turns import AT_ONCE, Turns
from adapters.hosting.upkeep import EVERY, Pace, Upkeep
from adapters.runtime.driver import InstanceRef, Status
from headway.broker import Drifts, Leads, Leftovers, Misled, Noted, Serving
from headway.errors import HeadwayError
from tests.adapters.sites import ENV, Machine, keep_on, running_server

FILES = {"index.html": b"<h1>one</h1>", "a/b.txt": b"text"}


@dataclass
class Memory:
    """A driver's list of instances without the processes; `visited` are those with open connections."""

    running: dict[InstanceRef, Status] = field(default_factory=dict)
    visited: set[InstanceRef] = field(default_factory=set)

    def start(self, seq: int, number: int) -> None:
        for index in range(number):
            ref = InstanceRef(ENV, seq, "web", index)
            self.running[ref] = Status(ref, "running", endpoint=f"unix:/nowhere/{seq}.{index}")

    def indexes(self, seq: int) -> list[int]:
        return sorted(ref.index for ref in self.running if ref.seq == seq)

    def list(self, env_id: str | None = None) -> list[Status]:
        return [one for one in self.running.values() if env_id in (None, one.ref.env_id)]

    def environments(self) -> set[str]:
        return {ref.env_id for ref in self.running}

    def status(self, ref: InstanceRef) -> Status:
        return self.running.get(ref, Status(ref, "absent"))

    def connections(self, ref: InstanceRef) -> int:
        return int(ref in self.visited)

    def remove(self, ref: InstanceRef) -> None:
        self.running.pop(ref, None)


@dataclass
class House:
    machine: Machine
    driver: Memory
    services: Services
    book: DriftBook
    mender: Mender
    upkeep: Upkeep

    @property
    def env(self) -> ReleaseSwitch:
        return self.machine.host.environment(ENV)

    def found(self, kind: str) -> list[Drift]:
        return [one for one in self.book.untold() if one.kind == kind]

    def app(self, web: int, origin: int = 0, beside: tuple[str, ...] = (), config_version: int = 0) -> int:
        """A release that is an app, as far as its folder goes, with its instances; it is live."""
        seq = self.machine.deploy(FILES)
        release = self.env.release(seq)
        plan = Plan(origin or seq, "d" * 64, config_version, web, beside=beside)
        (release / "instances.json").write_text(json.dumps(plan.__dict__))
        (self.env.release(plan.origin) / "config.sealed").touch()
        (release / f"@{seq}").rename(release / f"@{seq}+{ENV}")
        return seq


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    machine, driver = Machine(tmp_path / "host"), Memory()
    machine.host.route(ENV, ["acme.localhost"])
    folders = machine.host.folders
    services = Services(folders, driver)  # type: ignore[arg-type]
    book = DriftBook(tmp_path / "drifts")
    mender = Mender(folders, machine.host.store, machine.host.trees, book, every=0.0)
    upkeep = Upkeep(folders, services, Pace(warm=600.0, drain=60.0), book, mender.mend)
    yield House(machine, driver, services, book, mender, upkeep)
    upkeep.close()


# configuration


def test_what_has_lost_its_configuration_is_not_started_without(house: House) -> None:
    """An app that comes back without its secrets may write to another database, or let everybody in."""
    live = house.app(1)
    release = house.env.release(live)
    manifest = Manifest((), "dynamic", run=RunSettings("serve"))
    plan = Plan(live, manifest.digest, 3, 1)
    (release / "instances.json").write_text(json.dumps(plan.__dict__))
    (release / "config.sealed").touch()
    assert lacks(release, ENV) == ""
    (release / "config.sealed").unlink()
    house.upkeep.look(ENV)
    assert house.driver.running == {}
    [drift] = house.found("release")
    assert (drift.mended_at, "config.sealed" in drift.what) == (None, True)
    with pytest.raises(HeadwayError, match="nothing is started without"):
        list(house.services._specs(ENV, plan, RunSettings("serve")))
    # Nor does a later release take over what was started with it: a repair brings it again.
    house.env.release(live + 1).mkdir()
    assert house.services._plan(ENV, live + 1, manifest, 3, 1).origin == live + 1


# current


@pytest.mark.parametrize("damage", ["removed", "other", "file", "folder", "nowhere"])
def test_current_is_what_the_last_step_made_live(house: House, damage: str) -> None:
    house.machine.deploy(FILES)
    live = house.machine.deploy({"index.html": b"two"})
    current = house.env.env / "current"
    current.unlink()
    match damage:
        case "other":
            current.symlink_to("r/1")
        case "file":
            current.write_text("r/2")
        case "folder":
            (current / "r").mkdir(parents=True)
        case "nowhere":
            current.symlink_to("/etc")
    house.upkeep.look(ENV)
    assert os.readlink(current) == f"r/{live}"
    [drift] = house.found("current")
    assert drift.seq == live
    assert drift.mended_at is not None
    house.upkeep.look(ENV)
    assert len(house.found("current")) == 1


def test_a_step_that_was_killed_half_way_is_finished_and_a_retired_environment_stays_so(house: House) -> None:
    house.machine.deploy(FILES)
    two = house.machine.deploy({"index.html": b"two"})
    (house.env.env / "current").unlink()
    (house.env.env / "current").symlink_to("r/1")
    assert house.env.mend() == "led to r/1"
    assert house.env.live().seq == two
    house.env.retire()
    assert house.env.mend() is None
    (house.env.env / "current").symlink_to("r/1")
    house.env.mend()
    assert not (house.env.env / "current").is_symlink()


def test_a_release_whose_folder_is_gone_is_asked_for_and_its_instances_go_on(house: House) -> None:
    seq = house.app(2)
    house.driver.start(seq, 2)
    shutil.rmtree(house.env.release(seq))
    house.upkeep.look(ENV)
    [drift] = house.found("release")
    assert drift.mended_at is None
    assert house.driver.indexes(seq) == [0, 1]


# trees


def test_a_link_to_the_tree_that_has_become_a_folder_is_a_finding(house: House) -> None:
    live = house.machine.deploy(FILES)
    (house.env.release(live) / "root").unlink()
    (house.env.release(live) / "root").mkdir()
    house.upkeep.look(ENV)
    assert [one.seq for one in house.found("release")] == [live]
    house.machine.host.collect()


def test_one_damaged_environment_keeps_no_other_from_being_told_of(house: House) -> None:
    _, beside = house.machine.site(FILES)
    house.machine.deploy(FILES)
    told: list[Serving] = []
    left: list[str] = []

    class Broker:
        def tell_serving(self, _host_id: str, serving: Serving) -> Leftovers:
            told.append(serving)
            return Leftovers(environments=[ENV, beside])

        def tell_leads(self, _host_id: str, leads: Leads) -> Misled:
            assert set(leads.leads) == {ENV, beside}
            return Misled(environments=[ENV, beside])

    def leave(env_id: str) -> None:
        if env_id == ENV:
            raise HeadwayError("internal.error", "The fence of an environment cannot be read.")
        left.append(env_id)

    (house.env.env / "fence").write_text("{")
    reports = ServingReports("local", house.machine.host.folders, Broker(), leave, leave)
    reports.look()
    assert told[0].live == {beside: 1}
    assert left == [beside]
    reports.follow()
    assert left == [beside, beside]


def test_what_was_changed_in_a_tree_is_put_back_from_the_store(house: House) -> None:
    house.machine.deploy(FILES)
    root = Path(os.path.realpath(house.env.env / "current" / "root"))
    (root / "index.html").unlink()
    (root / "index.html").write_bytes(b"hax")
    (root / "a" / "b.txt").unlink()
    (root / "added.php").write_bytes(b"<?php")
    house.upkeep.look(ENV)
    assert {name: (root / name).read_bytes() for name in FILES} == FILES
    assert not (root / "added.php").exists()
    [drift] = house.found("tree")
    assert drift.what.startswith("a/b.txt, added.php, index.html")


def test_what_the_store_has_lost_is_open_until_it_was_fetched_again(house: House) -> None:
    seq = house.machine.deploy(FILES)
    root = Path(os.path.realpath(house.env.env / "current" / "root"))
    (root / "index.html").chmod(0o644)
    (root / "index.html").write_bytes(b"in the store, too")
    house.upkeep.look(ENV)
    house.upkeep.look(ENV)
    [drift] = house.found("contents")
    assert (drift.seq, drift.mended_at) == (seq, None)
    assert "index.html" in drift.what
    spec, _ = house.machine.shelf.artifact(FILES)
    house.machine.host.repair(spec, keep_on)
    house.upkeep.look(ENV)
    assert (root / "index.html").read_bytes() == FILES["index.html"]
    [again] = house.found("contents")
    assert again.id == drift.id
    assert again.mended_at is not None


def test_a_tree_without_its_manifest_is_given_it_back(house: House) -> None:
    house.machine.deploy(FILES)
    manifest = Path(os.path.realpath(house.env.env / "current" / "root")).parent / "manifest.json"
    whole = manifest.read_bytes()
    manifest.write_bytes(b"{}")
    house.upkeep.look(ENV)
    assert len(house.found("contents")) == 1
    house.machine.host.repair(house.machine.shelf.artifact(FILES)[0], keep_on)
    assert manifest.read_bytes() == whole


@pytest.mark.parametrize("damage", ["gone", "file", "link"])
def test_a_tree_whose_root_is_gone_is_made_anew(house: House, damage: str) -> None:
    house.machine.deploy(FILES)
    root = Path(os.path.realpath(house.env.env / "current" / "root"))
    shutil.rmtree(root)
    match damage:
        case "file":
            root.write_text("no folder")
        case "link":
            root.symlink_to("/etc")
    house.upkeep.look(ENV)
    assert {name: (root / name).read_bytes() for name in FILES} == FILES
    assert [one.mended_at is not None for one in house.found("tree")] == [True]
    assert not Path("/etc/a").exists()


def test_a_scrub_leaves_no_broken_tree_to_be_rolled_back_to(house: House) -> None:
    old = house.machine.deploy({"index.html": b"old", "a/b.txt": b"text"})
    house.machine.deploy(FILES)
    tree = Path(os.path.realpath(house.env.release(old) / "root"))
    (tree / "index.html").chmod(0o644)
    (tree / "index.html").write_bytes(b"OLD")
    os.utime(tree / "index.html", ns=(0, 0))
    (tree / "index.html").chmod(0o444)
    house.upkeep.look(ENV)
    assert house.book.untold() == []  # nothing shows without reading
    assert len(house.mender.forget_broken()) == 1
    assert not tree.exists()
    assert (house.env.env / "current" / "root" / "index.html").read_bytes() == FILES["index.html"]
    assert house.mender.forget_broken() == []


def test_scrubbing_is_due_once_in_its_time_across_restarts(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "host")
    assert 99 < Scrubber(machine.host.folders, list, 100.0).due_in() <= 100
    stamp = machine.host.folders.root / "scrubbed"
    os.utime(stamp, (time.time() - 70, time.time() - 70))
    assert 29 < Scrubber(machine.host.folders, list, 100.0).due_in() <= 30


# instances


def test_a_scaled_release_keeps_no_more_than_it_has(house: House) -> None:
    first = house.app(3)
    house.driver.start(first, 3)
    house.app(1, origin=first)
    house.driver.visited = {InstanceRef(ENV, first, "web", 2)}
    house.upkeep.look(ENV)
    assert house.driver.indexes(first) == [0, 2]  # one visitor has not left yet
    house.driver.visited = set()
    house.upkeep.look(ENV)
    assert house.driver.indexes(first) == [0]


def test_a_suspended_environment_runs_nothing_and_serves_its_page(house: House, tmp_path: Path) -> None:
    app = house.app(2)
    house.driver.start(app, 2)
    seq = house.machine.seq = app + 1
    house.machine.host.place_suspended(ENV, seq)
    house.machine.host.place_suspended(ENV, seq)
    house.env.switch(seq)
    house.driver.visited = {InstanceRef(ENV, app, "web", 1)}
    house.upkeep.look(ENV)
    assert house.driver.indexes(app) == [1]
    os.utime(house.env.env / "fence", (time.time() - 61, time.time() - 61))
    house.upkeep.look(ENV)
    assert house.driver.running == {}
    with running_server(house.machine.host.folders, tmp_path) as server:
        answer = server.get("/any/path", method="POST")
        assert (answer.status, answer.body) == (503, b"This site is suspended.\n")
        assert answer.headers["Cache-Control"] == "no-store"
    with pytest.raises(HeadwayError, match="too late"):
        house.machine.host.place_suspended(ENV, app)
    house.machine.deploy(FILES)
    house.machine.deploy({"index.html": b"two"})
    assert prune_releases(house.machine.host.folders, ENV, 5) == [seq, app]
    assert not is_suspended(house.env.release(seq))


def test_a_suspension_that_was_damaged_is_asked_for_and_ends_what_was_open_before(house: House) -> None:
    seq = house.machine.deploy(FILES)
    house.book.open(ENV, seq, "contents", "a file is gone")
    house.machine.host.place_suspended(ENV, seq + 2)
    house.env.switch(seq + 2)
    house.upkeep.look(ENV)
    assert [one.mended_at is not None for one in house.found("contents")] == [True]
    shutil.rmtree(house.env.release(seq + 2))
    house.upkeep.look(ENV)
    assert [one.mended_at for one in house.found("release")] == [None]


def test_links_to_sockets_that_were_removed_are_made_again(house: House) -> None:
    seq = house.app(2)
    house.driver.start(seq, 2)
    house.services.link(ENV, seq, house.services.plan_of(ENV, seq) or Plan(0, "", 0, 0))
    house.upkeep.look(ENV)
    assert house.book.untold() == []
    release = house.env.release(seq)
    (release / "sock.0").unlink()
    (release / "sock.1").unlink()
    (release / "sock.1").write_text("no link")
    house.upkeep.look(ENV)
    house.upkeep.look(ENV)
    assert [os.readlink(release / f"sock.{number}") for number in (0, 1)] == [
        f"/nowhere/{seq}.0",
        f"/nowhere/{seq}.1",
    ]
    [drift] = house.found("release")
    assert drift.mended_at is not None


def test_an_app_whose_configuration_is_gone_is_asked_for_and_not_started_without_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    monkeypatch.setattr(house.services, "ensure", lambda _env, seq: started.append(seq) or [])
    seq = house.app(1, config_version=1)
    (house.env.release(seq) / "config.sealed").unlink()
    house.upkeep.look(ENV)
    assert started == []
    assert [one.mended_at for one in house.found("release")] == [None]
    (house.env.release(seq) / "config.sealed").touch()
    house.upkeep.look(ENV)
    assert started == [seq]
    assert [one.mended_at is not None for one in house.found("release")] == [True]


def test_an_app_on_a_tree_that_was_removed_is_started_on_the_new_one(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    seq = house.app(2)
    house.driver.start(seq, 2)
    monkeypatch.setattr(house.services, "is_stale", lambda status: status.ref.index == 1)
    house.upkeep.look(ENV)
    assert house.driver.indexes(seq) == [0]
    assert house.found("instance")[0].what == "web.1 ran on a tree that was removed"


def test_what_a_driver_started_again_is_told_but_not_every_turn_of_a_loop(house: House) -> None:
    seq = house.app(1)
    house.driver.start(seq, 1)
    [ref] = house.driver.running
    for restarts in range(0, 40):
        house.driver.running[ref] = replace(house.driver.running[ref], restarts=restarts, exit_code=137)
        house.upkeep.look(ENV)
    assert [int(one.what.rpartition(" ")[2]) - 1 for one in house.found("instance")] == [1, 2, 3, 4, 8, 16, 32]


def test_a_restart_is_told_of_the_release_that_is_live_with_the_instance(house: House) -> None:
    first = house.app(1)
    house.driver.start(first, 1)
    live = house.app(1, origin=first)
    [ref] = house.driver.running
    for restarts in (0, 1):
        house.driver.running[ref] = replace(house.driver.running[ref], restarts=restarts, exit_code=137)
        house.upkeep.look(ENV)
    assert [one.seq for one in house.found("instance")] == [live]


def test_what_was_undone_does_not_stay_ready(house: House) -> None:
    old = house.app(1)
    bad = house.app(1)
    for seq in (old, bad):
        house.driver.start(seq, 1)
    house.env.undo(bad + 1, old)
    house.driver.visited = {InstanceRef(ENV, bad, "web", 0)}
    house.upkeep.look(ENV)
    assert house.driver.indexes(bad) == [0]  # one visitor has not left yet
    os.utime(house.env.env / "fence", (time.time() - 61, time.time() - 61))
    house.upkeep.look(ENV)
    assert (house.driver.indexes(old), house.driver.indexes(bad)) == ([0], [])


def test_visitors_of_an_old_release_have_their_time_however_often_one_deploys(house: House) -> None:
    old = house.app(1)
    house.driver.start(old, 1)
    house.driver.visited = {InstanceRef(ENV, old, "web", 0)}
    for seq in (house.app(1), house.app(1)):
        house.driver.start(seq, 1)
    house.upkeep.look(ENV)
    assert house.driver.indexes(old) == [0]
    long_ago = time.time() - 61
    os.utime(house.env.release(old) / "instances.json", (long_ago, long_ago))
    house.driver.start(house.app(1), 1)
    house.upkeep.look(ENV)
    assert house.driver.indexes(old) == []


def test_what_was_put_back_has_its_time_anew(house: House) -> None:
    old = house.app(1)
    house.driver.start(old, 1)
    house.driver.visited = {InstanceRef(ENV, old, "web", 0)}
    for seq in (house.app(1), house.app(1)):
        house.driver.start(seq, 1)
    house.upkeep.look(ENV)
    plan = house.env.release(old) / "instances.json"
    assert json.loads(plan.read_bytes())["stopping"]
    os.utime(plan, (time.time() - 1000, time.time() - 1000))
    house.machine.seq += 1
    house.env.undo(house.machine.seq, old)
    house.upkeep.look(ENV)
    assert not json.loads(plan.read_bytes())["stopping"]
    for seq in (house.app(1), house.app(1)):
        house.driver.start(seq, 1)
    house.upkeep.look(ENV)
    assert house.driver.indexes(old) == [0], "who is connected may take a minute to leave"


def test_a_driver_that_is_away_for_a_while_is_asked_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [HeadwayError("runtime.unavailable", "the engine does not answer"), OSError(24, "too many files")]
    seen = threading.Event()

    def environments() -> set[str]:
        if answers:
            raise answers.pop()
        seen.set()
        return set()

    def never() -> None:
        raise HeadwayError("runtime.unavailable", "the engine does not answer")

    monkeypatch.setattr(house.driver, "environments", environments)
    monkeypatch.setattr("adapters.hosting.upkeep.EVERY", 0.01)
    loop = threading.Thread(target=house.upkeep.run, args=(never,), daemon=True)
    loop.start()
    assert seen.wait(5.0), "nothing is mended any more"
    house.upkeep.close()
    loop.join(5.0)
    assert not loop.is_alive()


def test_results_of_commands_are_kept_for_who_may_not_have_been_told(house: House) -> None:
    live = house.app(1)
    house.driver.start(live, 1)
    now = time.time()
    for number, ago in enumerate([5.0] * 10 + [100.0] * 100 + [4000.0]):
        ref = InstanceRef(ENV, live, f"run-{number:03d}")
        house.driver.running[ref] = Status(ref, "stopped", since=now - ago - number / 1000)
    running = InstanceRef(ENV, live, "run-now")
    house.driver.running[running] = Status(running, "running", since=now - 5000.0)
    for _ in range(10):
        house.upkeep.look(ENV)
    kept = sorted(ref.process for ref in house.driver.running if ref.process != "web")
    assert kept == [*(f"run-{number:03d}" for number in range(AT_ONCE)), "run-now"]


def test_a_worker_of_a_warm_release_rests_and_comes_back_with_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def worker(seq: int) -> InstanceRef:
        return InstanceRef(ENV, seq, "worker")

    def ensure(_env_id: str, seq: int) -> list[Status]:
        plan = house.services.plan_of(ENV, seq)
        assert plan is not None
        house.driver.running[worker(plan.origin)] = Status(worker(plan.origin), "running")
        return []

    monkeypatch.setattr(house.services, "ensure", ensure)
    old = house.app(1, beside=("worker",))
    house.driver.start(old, 1)
    ensure(ENV, old)
    new = house.app(1, beside=("worker",))
    house.driver.start(new, 1)
    ensure(ENV, new)
    house.upkeep.look(ENV)
    assert set(house.driver.running) == {InstanceRef(ENV, old, "web"), InstanceRef(ENV, new, "web"), worker(new)}
    house.app(1, origin=old, beside=("worker",))
    house.upkeep.look(ENV)
    assert set(house.driver.running) == {InstanceRef(ENV, old, "web"), InstanceRef(ENV, new, "web"), worker(old)}
    assert house.found("instance") == []  # no drift: it was meant so
    del house.driver.running[worker(old)]
    house.driver.running[worker(old)] = Status(worker(old), "stopped", reason="killed")
    house.upkeep.look(ENV)
    assert [one.what for one in house.found("instance")] == ["worker.0 did not run (killed): it was started again"]


def test_what_is_slow_to_stop_keeps_nothing_from_being_mended(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    old, live = house.app(3), house.app(1)
    for seq, number in ((old, 3), (live, 1)):
        house.driver.start(seq, number)
    os.utime(house.env.env / "fence", (time.time() - 3000, time.time() - 3000))
    goes, asked, remove = threading.Event(), list[InstanceRef](), house.driver.remove

    def slowly(ref: InstanceRef) -> None:
        asked.append(ref)
        goes.wait(60)
        remove(ref)

    monkeypatch.setattr(house.driver, "remove", slowly)
    loop = threading.Thread(target=house.upkeep.run, daemon=True)
    loop.start()
    try:
        until(lambda: len(asked) == 3, "each is told to stop")
        for _ in range(2):
            (house.env.env / "current").unlink()
            house.upkeep.poke(ENV)
            until(lambda: (house.env.env / "current").is_symlink(), "what serves is looked after meanwhile")
        assert (len(asked), house.driver.indexes(old)) == (3, [0, 1, 2]), "and nobody is told twice"
    finally:
        goes.set()
    until(lambda: house.driver.indexes(old) == [], "they are gone")
    house.upkeep.close()
    loop.join(30)
    assert house.driver.indexes(live) == [0]


def test_one_environment_that_is_slow_to_stop_keeps_no_other_running(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "STOPS_EACH", 2)
    goes, asked = threading.Event(), list[InstanceRef]()

    def slowly(ref: InstanceRef) -> None:
        asked.append(ref)
        goes.wait(60)

    monkeypatch.setattr(house.driver, "remove", slowly)
    for index in range(5):
        house.upkeep._stop(InstanceRef(ENV, 1, "web", index))
    house.upkeep._stop(InstanceRef("env_01KVT00000000000000000000B", 1))
    until(lambda: len(asked) == 3, "two of the one, and the other's")
    goes.set()
    until(lambda: not house.upkeep._stopping, "they are gone")
    house.upkeep._stop(InstanceRef(ENV, 1, "web", 4))
    until(lambda: len(asked) == 4, "at a later look")


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


# baking


def test_what_a_watched_release_has_replaced_stays_ready(house: House) -> None:
    old = house.app(1)
    new = house.app(1)
    for seq in (old, new):
        house.driver.start(seq, 1)
    (house.env.release(new) / "bake").write_text(json.dumps({"until": time.time() + 10}))
    os.utime(house.env.env / "fence", (time.time() - 3000, time.time() - 3000))
    house.upkeep.look(ENV)
    assert house.driver.indexes(old) == [0]
    (house.env.release(new) / "bake").write_text(json.dumps({"until": time.time() - 1000}))
    house.upkeep.look(ENV)
    assert house.driver.indexes(old) == []


def test_visitors_speak_in_a_bake(house: House) -> None:
    seq = house.machine.deploy(FILES)
    counts = iter([(0, 0), (10, 9), (40, 2), (60, 4)])
    bakery = Bakery(house.services, lambda _env, _since: next(counts))
    seen = bakery.watch(ENV, seq, house.env.release(seq), 3600, "acme.localhost", Story(keep_on))
    assert (seen.requests, seen.errors) == (60, 4)
    assert seen.why == "4 of 60 visitors got a server error"
    quiet = Bakery(house.services).watch(ENV, seq, house.env.release(seq), 3600, "acme.localhost", Story(keep_on))
    assert (quiet.looks, quiet.why) == (0, "")


def test_a_team_that_bakes_much_has_its_own_wait_and_what_they_replaced_stays_ready(house: House) -> None:
    seq = house.machine.deploy(FILES)
    release, story = house.env.release(seq), Story(keep_on)
    turns = Turns(at_once=2, waiting=4, share=0.5, noun="bakes", code="roll.host_busy")
    bakery = Bakery(house.services, lambda _env, _since: (0, 0), turns=turns)
    said: list[str] = []

    def stop() -> None:
        raise HeadwayError("job.canceled", "canceled while it waits")

    with turns.counted("much"):
        assert bakery.watch(ENV, seq, release, 0.2, "acme.localhost", story, "other").seconds >= 0.2
        (release / "bake").unlink()
        with pytest.raises(HeadwayError, match="while it waits"):
            bakery.watch(ENV, seq, release, 3600, "acme.localhost", Story(stop, said.append), "much")
        assert said == ["waits for its turn: this host watches 2 releases at once"]
        assert baking_until(release) > time.time() + 3600
    seen = bakery.watch(ENV, seq, release, 0.2, "acme.localhost", story, "much")
    assert 0.2 <= seen.seconds < 5  # from its turn on
    with turns.counted("much"):  # a worker that comes back goes on with what has begun
        assert bakery.watch(ENV, seq, release, 0.2, "acme.localhost", Story(keep_on, said.append), "much").why == ""


# telling


@dataclass
class Listener:
    heard: list[Drifts] = field(default_factory=list)
    away: bool = False

    def report_drifts(self, host_id: str, drifts: Drifts, *, patience: float | None = None) -> Noted:
        assert (host_id, patience) == ("local", 1.0)
        if self.away:
            raise HeadwayError("service.unavailable", "away")
        self.heard.append(drifts)
        return Noted(noted=len(drifts.drifts))


def test_a_finding_is_told_once_and_its_end_too_across_restarts(tmp_path: Path) -> None:
    listener = Listener(away=True)
    book = DriftBook(tmp_path)
    book.open(ENV, 3, "contents", "index.html")
    book.open(ENV, 3, "contents", "index.html")
    book.mended(ENV, 3, "current", "was gone")
    with pytest.raises(HeadwayError):
        DriftReports("local", book, listener).send()
    listener.away = False
    book = DriftBook(tmp_path)
    reports = DriftReports("local", book, listener)
    reports.send()
    reports.send()
    assert [[one.kind for one in batch.drifts] for batch in listener.heard] == [["contents", "current"]]
    book = DriftBook(tmp_path)
    book.close(ENV)
    DriftReports("local", book, listener).send()
    [last] = listener.heard[-1].drifts
    assert (last.id, last.mended_at is not None) == (listener.heard[0].drifts[0].id, True)
    assert list(tmp_path.iterdir()) == []


# what rests


def test_what_rests_is_left_alone_until_it_is_touched(house: House) -> None:
    house.machine.deploy(FILES)
    assert house.upkeep.due() == [ENV]
    house.upkeep.look(ENV)
    assert house.upkeep.due() == []
    house.machine.deploy({"index.html": b"two"})
    assert house.upkeep.due() == [ENV]
    house.upkeep.look(ENV)
    assert house.upkeep.due() == []
    (house.env.env / "current").unlink()
    assert house.upkeep.due() == [ENV]
    house.upkeep.look(ENV)
    (house.env.release(2) / "root").unlink()
    assert house.upkeep.due() == [ENV]
    house.upkeep.look(ENV)
    assert house.upkeep.due() == [ENV]  # it waits for others


def test_an_app_is_looked_at_each_time(house: House) -> None:
    house.app(1)
    house.driver.start(1, 1)
    for _ in range(2):
        assert house.upkeep.due() == [ENV]
        house.upkeep.look(ENV)


def test_a_small_host_is_looked_at_often_and_a_large_one_not_at_the_cost_of_visitors(house: House) -> None:
    folders, store, trees = house.machine.host.folders, house.machine.host.store, house.machine.host.trees
    mender = Mender(folders, store, trees, house.book)
    assert mender.pace() + EVERY < 10, "what was edited is put back within ten seconds"
    house.machine.deploy(FILES)
    mender.mend(ENV)
    assert mender.pace() == LEAST
    mender._took["large"] = 1.0
    assert 1.0 / SHARE <= mender.pace() < MOST
    mender._took["huge"] = 100.0
    assert mender.pace() == MOST
