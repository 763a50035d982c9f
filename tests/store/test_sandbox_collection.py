"""What sandboxes leave in the object store: what something needs is never taken, what nothing needs goes."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import pytest
from sqlmodel import col, select

from activities.retention import Retention
from adapters.artifact.snapshot import MAX_BYTES, SnapshotFile, digest_of, dumped, parsed
from headway.errors import HeadwayError
from headway.ids import new_id
from store import sandboxes
from store.builds import Given, accept_build
from store.collection import Rules
from store.execs import accept_exec, result_key
from store.models import Artifact, Build, Environment, Job, Project, Site, utcnow
from store.models_retention import Doomed
from store.models_sandbox_packs import SandboxLease, SandboxPack, Snapshot, SnapshotPack
from store.models_sandboxes import Sandbox, SandboxFile
from store.outcomes import end_build, end_job, fail_build
from store.retention import forget_jobs
from store.sandbox_packs import hold, hold_snapshot, named_packs, release
from store.sandboxes import Entry, SandboxLimits, SandboxRequest, files_below, pack_key, snapshot_key
from store.session import Store
from temporal.messages import Retained, RetentionOrder
from tests.api.doubles import MemoryObjects
from tests.workflows.rows import World

T = TypeVar("T")
AT_ONCE = Rules(after=timedelta(0), wait=timedelta(0), warm=timedelta(0))
LIMITS = SandboxLimits()
ORDER = RetentionOrder("")


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def steadily(work: Callable[[], T]) -> T:
    """Without a wait between mark and collection a reader may come late: it looks again."""
    for _ in range(4):
        try:
            return work()
        except HeadwayError as error:
            if error.code != "artifact.collected":
                raise
    return work()


@dataclass
class Bench:
    """Sandboxes of one team, written, frozen and built as the API does it."""

    world: World
    objects: MemoryObjects = field(default_factory=MemoryObjects)

    @property
    def store(self) -> Store:
        return self.world.store

    @property
    def team(self) -> str:
        return self.world.team_id

    def sandbox(self) -> str:
        wanted = SandboxRequest(None, "miosa-sandbox", {}, None, None, None, None, None)
        with self.store.write() as session:
            project = session.exec(select(Project).where(Project.team_id == self.team)).one()
            return sandboxes.make_sandbox(session, project, wanted, {}, LIMITS).id

    def lease(self, pack: bytes, holder: str) -> str:
        with self.store.write() as session:
            hold(session, self.team, holder, {sha(pack): len(pack)})
        self.objects.put_new(pack_key(self.team, sha(pack)), pack, sha(pack))
        return sha(pack)

    def keep(self, sandbox_id: str, files: Mapping[str, bytes], pack: bytes, holder: str) -> None:
        entries = [Entry(path, sha(body), len(body), sha(pack), pack.index(body)) for path, body in files.items()]
        with self.store.write() as session:
            found = session.get_one(Sandbox, sandbox_id, with_for_update=True)
            sandboxes.write_files(session, found, entries, LIMITS)
            release(session, holder)

    def write(self, sandbox_id: str, files: Mapping[str, bytes]) -> str:
        pack, holder = b"".join(files.values()), new_id("lease")
        self.lease(pack, holder)
        self.keep(sandbox_id, files, pack, holder)
        return sha(pack)

    def freeze(self, sandbox_id: str) -> str:
        holder = new_id("lease")
        with self.store.write() as session:
            rows = files_below(session, sandbox_id, "")
            hold(session, self.team, holder, {row.pack_sha256: row.offset + row.size for row in rows})
        files = [SnapshotFile(one.path, one.mode, one.size, one.sha256, one.pack_sha256, one.offset) for one in rows]
        digest, raw = digest_of(files), dumped(files)
        with self.store.write() as session:
            hold_snapshot(session, self.team, holder, digest, {one.pack for one in files})
        self.objects.put_new(snapshot_key(self.team, digest), raw, sha(raw))
        return digest

    def publish(self, digest: str) -> str:
        """A build of a snapshot, accepted; the lease of freezing is over."""
        with self.store.write() as session:
            site, env = session.get_one(Site, self.world.site_id), session.get_one(Environment, self.world.env_id)
            given = Given(source={"kind": "snapshot", "sha256": digest})
            job = accept_build(session, site, env, {}, ref="sandbox:x", clean=False, trigger="publish", given=given)
            build_id = session.exec(select(Build.id).where(Build.job_id == job.id)).one()
        self.lapse()
        return build_id

    def succeed(self, build_id: str, name: str) -> str:
        artifact = self.world.artifact(sha(name.encode()))
        with self.store.write() as session:
            build = session.get_one(Build, build_id)
            build.artifact_id = artifact
            end_build(session, build, "succeeded")
            end_job(session, session.get_one(Job, build.job_id), "succeeded")
        return artifact

    def lapse(self) -> None:
        with self.store.write() as session:
            for one in session.exec(select(SandboxLease)).all():
                one.expires_at = utcnow()
                session.add(one)

    def destroy(self, sandbox_id: str) -> None:
        with self.store.write() as session:
            sandboxes.destroy(session, session.get_one(Sandbox, sandbox_id))

    def run(self, rules: Rules = AT_ONCE) -> Retained:
        does, told = Retention(self.store, self.objects, rules, smallest=0), Retained()
        for step in (does.collect, does.repack, does.delete, does.mark):
            told = told.plus(step(ORDER))
        return told

    def has(self, pack: str) -> bool:
        return pack_key(self.team, pack) in self.objects.held

    def has_snapshot(self, digest: str) -> bool:
        return snapshot_key(self.team, digest) in self.objects.held

    def read(self, sandbox_id: str) -> dict[str, bytes]:
        """What a download of each file gives; looked up again where it was moved meanwhile, as the API does."""
        return steadily(lambda: self._read(sandbox_id))

    def _read(self, sandbox_id: str) -> dict[str, bytes]:
        with self.store.read() as session:
            rows = files_below(session, sandbox_id, "")
        found = {}
        for row in rows:
            body = self.objects.get_range(pack_key(self.team, row.pack_sha256), row.offset, row.size)
            assert sha(body) == row.sha256, row.path
            found[row.path] = body
        return found

    def whole(self, digest: str) -> None:
        """Every file of a snapshot is where it says, and its packs are told to builders."""
        steadily(lambda: self._whole(digest))

    def _whole(self, digest: str) -> None:
        files = parsed(self.objects.get(snapshot_key(self.team, digest), MAX_BYTES), digest)
        with self.store.read() as session:
            named = named_packs(session, self.team, digest, {one.pack for one in files})
        assert set(named) == {one.pack for one in files}
        for one in files:
            assert sha(self.objects.get_range(pack_key(self.team, one.pack), one.offset, one.size)) == one.sha256


@pytest.fixture
def bench(store: Store) -> Bench:
    return Bench(World.make(store))


def test_what_a_deleted_sandbox_held_goes_and_what_lives_stays(bench: Bench) -> None:
    gone, lives = bench.sandbox(), bench.sandbox()
    shared, own = bench.write(gone, {"a": b"shared"}), bench.write(gone, {"b": b"own"})
    bench.write(lives, {"a": b"shared"})
    assert bench.run().sandbox_packs == 0
    bench.destroy(gone)
    bench.run()
    waiting = bench.run(Rules(timedelta(0), timedelta(hours=1), timedelta(0)))
    assert (waiting.sandbox_packs, bench.has(own)) == (0, True), "it has not waited"
    assert bench.run() == Retained(sandbox_packs=1, sandbox_bytes=3, objects=1)
    assert (bench.has(own), bench.has(shared)) == (False, True)
    assert bench.read(lives) == {"a": b"shared"}
    with bench.store.read() as session:
        assert session.exec(select(Doomed)).all() == []
        assert session.exec(select(SandboxFile).where(SandboxFile.sandbox_id == gone)).all() == []


def test_an_expired_sandbox_is_ended_and_overwritten_content_goes(bench: Bench) -> None:
    box = bench.sandbox()
    old = bench.write(box, {"a": b"old"})
    new = bench.write(box, {"a": b"new"})
    bench.run()
    bench.run()
    assert (bench.has(old), bench.has(new)) == (False, True)
    with bench.store.write() as session:
        session.get_one(Sandbox, box).expires_at = utcnow() - timedelta(seconds=1)
    bench.run()
    bench.run()
    assert not bench.has(new)


def test_a_dry_run_counts_and_takes_nothing(bench: Bench) -> None:
    box = bench.sandbox()
    pack = bench.write(box, {"a": b"four"})
    bench.freeze(box)
    bench.lapse()
    with bench.store.write() as session:
        sandboxes.remove_files(session, session.get_one(Sandbox, box), ["a"])
    counted = Retention(bench.store, bench.objects, AT_ONCE).mark(RetentionOrder("", dry_run=True))
    assert (counted.snapshots, counted.sandbox_packs) == (1, 0), "the snapshot names it still"
    assert bench.has(pack)


def test_a_version_keeps_its_source_until_its_artifact_is_collected(bench: Bench) -> None:
    box = bench.sandbox()
    pack = bench.write(box, {"index.html": b"one"})
    first = bench.freeze(box)
    build = bench.publish(first)
    bench.destroy(box)
    bench.run()
    bench.run()
    bench.whole(first)
    artifact = bench.succeed(build, "first")
    other = bench.sandbox()
    bench.write(other, {"index.html": b"two"})
    second = bench.freeze(other)
    bench.publish(second)
    bench.run(Rules(timedelta(days=30), timedelta(0), timedelta(0)))
    bench.run(Rules(timedelta(days=30), timedelta(0), timedelta(0)))
    bench.whole(first)
    with bench.store.write() as session:
        session.get_one(Artifact, artifact).collected_at = utcnow()
    for _ in range(4):
        bench.run()
    assert (bench.has_snapshot(first), bench.has(pack)) == (False, False)
    bench.whole(second)
    with bench.store.read() as session:
        assert session.exec(select(SnapshotPack).where(SnapshotPack.sha256 == first)).all() == []


def test_the_last_build_keeps_its_source_though_it_failed(bench: Bench) -> None:
    """`redeploy` builds it again."""
    box = bench.sandbox()
    bench.write(box, {"index.html": b"one"})
    digest = bench.freeze(box)
    build = bench.publish(digest)
    with bench.store.write() as session:
        fail_build(session, build, {"code": "build.step_failed", "message": "no"}, canceled=False)
    bench.destroy(box)
    for _ in range(3):
        bench.run()
    bench.whole(digest)
    with bench.store.write() as session:
        session.get_one(Site, bench.world.site_id).deleted_at = utcnow()
    for _ in range(4):
        bench.run()
    assert not bench.has_snapshot(digest)


def test_a_command_keeps_its_snapshot_and_its_words_go_with_its_job(bench: Bench) -> None:
    box = bench.sandbox()
    bench.write(box, {"a": b"a"})
    digest = bench.freeze(box)
    with bench.store.write() as session:
        job = accept_exec(session, session.get_one(Sandbox, box), {"sha256": digest}, {})
    bench.lapse()
    key = result_key(bench.team, job.id)
    bench.objects.put_new(key, b"said", sha(b"said"))
    bench.run()
    bench.run()
    bench.whole(digest)
    with bench.store.write() as session:
        end_job(session, session.get_one(Job, job.id), "succeeded")
    bench.run()
    bench.run()
    assert not bench.has_snapshot(digest)
    with bench.store.write() as session:
        assert forget_jobs(session, utcnow() + timedelta(seconds=1)) == [job.id]
    bench.run()
    assert key not in bench.objects.held


def test_what_is_on_its_way_is_leased(bench: Bench) -> None:
    box = bench.sandbox()
    pack = bench.lease(b"coming", "w1")
    bench.lease(b"lost", "w2")
    with bench.store.write() as session:
        session.get_one(SandboxLease, ("w2", bench.team, sha(b"lost"))).expires_at = utcnow()
    bench.run()
    assert bench.run().sandbox_packs == 1, "the write that died"
    bench.keep(box, {"a": b"coming"}, b"coming", "w1")
    bench.run()
    bench.run()
    assert bench.has(pack)
    assert bench.read(box) == {"a": b"coming"}


def test_nobody_counts_on_what_is_being_deleted(bench: Bench) -> None:
    box = bench.sandbox()
    bench.write(box, {"a": b"x"})
    digest = bench.freeze(box)
    with bench.store.write() as session:
        session.add(Doomed(site_id=bench.team, key=pack_key(bench.team, sha(b"x"))))
        session.add(Doomed(site_id=bench.team, key=snapshot_key(bench.team, digest)))
    with pytest.raises(HeadwayError) as refused:
        bench.lease(b"x", "w")
    assert refused.value.code == "upload.failed"
    with pytest.raises(HeadwayError) as refused, bench.store.write() as session:
        hold_snapshot(session, bench.team, "w", digest, [])
    assert refused.value.code == "upload.failed"


def test_a_pack_that_is_mostly_dead_is_copied_and_its_snapshots_follow(bench: Bench) -> None:
    box = bench.sandbox()
    parts = {f"f{n}": bytes([65 + n]) * 100 for n in range(10)}
    pack = bench.write(box, parts)
    with bench.store.write() as session:
        sandboxes.remove_files(session, session.get_one(Sandbox, box), [f"f{n}" for n in range(6, 10)])
    assert bench.run().repacked == 0, "most of it counts"
    with bench.store.write() as session:
        sandboxes.remove_files(session, session.get_one(Sandbox, box), [f"f{n}" for n in range(4, 6)])
    digest = bench.freeze(box)
    bench.publish(digest)
    with bench.store.write() as session:
        sandboxes.remove_files(session, session.get_one(Sandbox, box), ["f0"])
    assert bench.run().repacked == 1
    bench.whole(digest)
    assert bench.read(box) == {name: parts[name] for name in ("f1", "f2", "f3")}
    with bench.store.read() as session:
        older = named_packs(session, bench.team, digest, [pack])
    assert older == [pack], "a builder may have read the older list"
    bench.run()
    bench.run()
    assert not bench.has(pack)
    bench.whole(digest)
    assert bench.read(box) == {name: parts[name] for name in ("f1", "f2", "f3")}
    with bench.store.read() as session:
        sizes = session.exec(select(SandboxPack.size)).all()
    assert list(sizes) == [400]


def test_two_copies_for_one_snapshot_at_once_lose_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of layouts: the later one must not write what the earlier one had read."""
    box = bench.sandbox()
    for folder in "ab":
        bench.write(box, {f"{folder}/{n}": f"{folder}{n}".encode() * 50 for n in range(10)})
    with bench.store.write() as session:
        sandboxes.remove_files(
            session, session.get_one(Sandbox, box), [f"{folder}/{n}" for folder in "ab" for n in range(2, 10)]
        )
    digest = bench.freeze(box)
    bench.publish(digest)
    late, get = Retention(bench.store, bench.objects, AT_ONCE, smallest=0), bench.objects.get

    def overtaken(wanted: str, max_bytes: int) -> bytes:
        raw = get(wanted, max_bytes)
        if wanted == snapshot_key(bench.team, digest):
            monkeypatch.setattr(bench.objects, "get", get)
            assert bench.run().repacked == 2
        return raw

    monkeypatch.setattr(bench.objects, "get", overtaken)
    late.repack(ORDER)
    for _ in range(3):
        bench.run()
    bench.whole(digest)


def test_a_collection_that_runs_all_the_time_takes_nothing_from_writers(bench: Bench) -> None:
    """Sandboxes are written, overwritten, frozen and deleted beside it, always with the same few contents."""
    faults: list[str] = []
    ending = threading.Event()
    bodies = [bytes([65 + n]) * 64 for n in range(6)]

    def collect() -> None:
        while not ending.is_set():
            try:
                bench.run()
            except Exception as error:
                faults.append(f"collection: {error!r}")

    def again(work: object) -> object:
        for _ in range(500):
            try:
                return work()  # type: ignore[operator]
            except HeadwayError as error:
                if error.code != "upload.failed":
                    faults.append(error.code)
                time.sleep(0.002)
        faults.append("never")
        return None

    def use(number: int) -> None:
        try:
            for turn in range(12):
                box = bench.sandbox()
                files = {f"f{n}": bodies[(n + turn + number) % 6] for n in range(3)}
                again(lambda box=box, files=files: bench.write(box, files))
                again(lambda box=box, files=files: bench.write(box, {"f0": files["f1"]}))
                if bench.read(box) != {**files, "f0": files["f1"]}:
                    faults.append("read")
                digest = again(lambda box=box: bench.freeze(box))
                bench.destroy(box)
                bench.whole(str(digest))
        except Exception as error:
            faults.append(f"writer: {error!r}")

    threads = [threading.Thread(target=use, args=(n,)) for n in range(3)]
    collector = threading.Thread(target=collect)
    for thread in (collector, *threads):
        thread.start()
    for thread in threads:
        thread.join(120)
    ending.set()
    collector.join(120)
    assert faults == []
    bench.lapse()
    for _ in range(4):
        bench.run()
    with bench.store.read() as session:
        assert session.exec(select(SandboxPack)).all() == []
        assert session.exec(select(Snapshot)).all() == []
        assert session.exec(select(SandboxFile).where(col(SandboxFile.path) != "")).all() == []
    assert [key for key in bench.objects.held if "/packs/" in key or "/snapshots/" in key] == []
