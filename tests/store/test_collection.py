"""Collection: what something needs is never taken; what nothing needs goes, after a wait and a second look."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from sqlmodel import col, select

from activities.retention import REPORT, Retention
from adapters.artifact.layout import Layout, Location, parse_layout
from headway.errors import HeadwayError
from store import broker, collection
from store.artifacts import object_key, pack_key
from store.collection import Rules
from store.models import (
    Artifact,
    ArtifactPack,
    Build,
    Content,
    Environment,
    Job,
    Mark,
    Pack,
    PackLease,
    Release,
    Rollout,
    Site,
    utcnow,
)
from store.models_retention import Doomed, Repack
from store.outcomes import append_release, end_build, end_job, end_rollout
from store.rollouts import accept_rollout
from store.session import Store
from temporal.messages import JobRef, Retained, RetentionOrder
from tests.api.doubles import MemoryObjects
from tests.workflows.rows import World, claim_next

AT_ONCE = Rules(after=timedelta(0), wait=timedelta(0), warm=timedelta(0))
ORDER = RetentionOrder("")


def sha(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


@dataclass
class Shelf:
    """A site's artifacts, with rows and objects as a builder leaves them."""

    world: World
    objects: MemoryObjects = field(default_factory=MemoryObjects)

    @property
    def store(self) -> Store:
        return self.world.store

    def pack(self, *contents: bytes) -> str:
        body = b"".join(contents)
        pack, places, at = sha(body), [], 0
        for one in contents:
            places.append((sha(one), at, len(one)))
            at += len(one)
        self.objects.put_new(pack_key(self.world.site_id, pack), body, pack)
        with self.store.write() as session:
            of = Build(id="b", site_id=self.world.site_id, env_id="", job_id="", ref="")
            broker.record_pack(session, of, (pack, len(body)), places)
        return pack

    def artifact(self, name: str, contents: Mapping[str, tuple[int, bytes]]) -> str:
        """`contents`: pack → offset and bytes."""
        digest, site_id = sha(name), self.world.site_id
        places = {sha(body): Location(pack, at, len(body)) for pack, (at, body) in contents.items()}
        return self.keep(digest, Layout(places), site_id)

    def keep(self, digest: str, layout: Layout, site_id: str) -> str:
        for part, raw in (("manifest", b"m"), ("layout", layout.raw), ("bundle", b"b")):
            self.objects.put_new(object_key(site_id, digest, part), raw, sha(raw))
        artifact_id = self.world.artifact(digest)
        with self.store.write() as session:
            session.add_all(ArtifactPack(site_id=site_id, digest=digest, pack_sha256=one) for one in layout.packs)
        return artifact_id

    def retention(self, rules: Rules = AT_ONCE) -> Retention:
        return Retention(self.store, self.objects, rules, smallest=0)

    def run(self, rules: Rules = AT_ONCE) -> Retained:
        """As the workflow does it."""
        does, told = self.retention(rules), Retained()
        for step in (does.collect, does.repack, does.delete, does.mark):
            told = told.plus(step(ORDER))
        return told

    def roll(self, artifact_id: str) -> None:
        job = self.world.accept_roll(artifact_id)
        with self.store.write() as session:
            claim_next(session, self.world.env_id)
            append_release(session, job.resource_id, None)

    def row(self, artifact_id: str) -> Artifact:
        with self.store.read() as session:
            return session.get_one(Artifact, artifact_id)

    def has(self, pack: str) -> bool:
        return pack_key(self.world.site_id, pack) in self.objects.held


@pytest.fixture
def shelf(store: Store) -> Shelf:
    return Shelf(World.make(store))


def test_what_was_replaced_is_marked_then_taken_and_its_rows_stay(shelf: Shelf) -> None:
    shared, own = shelf.pack(b"shared"), shelf.pack(b"own")
    old = shelf.artifact("old", {shared: (0, b"shared"), own: (0, b"own")})
    new = shelf.artifact("new", {shared: (0, b"shared")})
    shelf.roll(old)
    assert shelf.run().marked == 1, "the one that was never rolled"
    shelf.roll(new)
    assert shelf.run() == Retained(spared=1, marked=1, bytes=1)
    waiting = shelf.run(Rules(timedelta(0), timedelta(hours=1), timedelta(0)))
    assert waiting == Retained(), "it has not waited"
    assert shelf.run().collected == 1
    row = shelf.row(old)
    assert row.collected_at is not None
    assert (shelf.has(shared), shelf.has(own)) == (True, False)
    assert not [key for key in shelf.objects.held if row.digest in key]
    assert len([key for key in shelf.objects.held if shelf.row(new).digest in key]) == 3
    with shelf.store.read() as session:
        assert session.exec(select(Doomed)).all() == []
        assert [one.sha256 for one in session.exec(select(Content)).all()] == [sha(b"shared")]
        assert len(session.exec(select(Release)).all()) == 2
    with shelf.store.write() as session:
        site, environment = session.get_one(Site, row.site_id), session.get_one(Environment, shelf.world.env_id)
        with pytest.raises(HeadwayError) as gone:
            accept_rollout(session, site, environment, session.get_one(Artifact, old), {})
    assert (gone.value.code, gone.value.status) == ("artifact.collected", 410)
    assert shelf.run() == Retained()


def test_what_something_needs_is_never_taken(shelf: Shelf) -> None:
    names = ("current", "queued", "waiting", "building", "kept", "nobody's")
    ids = {name: shelf.artifact(name, {}) for name in names}
    shelf.roll(ids["current"])
    shelf.world.accept_roll(ids["queued"])
    push, again = shelf.world.accept_push(), shelf.world.accept_build()
    with shelf.store.write() as session:
        build = session.exec(select(Build).where(Build.job_id == push.id)).one()
        build.artifact_id = ids["waiting"]
        end_build(session, build, "succeeded")
        session.exec(select(Build).where(Build.job_id == again.id)).one().manifest_sha256 = sha("building")
        session.get_one(Artifact, ids["kept"]).kept = True
    told = shelf.retention().mark(RetentionOrder("", dry_run=True))
    assert (told.marked, shelf.row(ids["nobody's"]).marked_at) == (1, None)
    shelf.run()
    assert [name for name, one in ids.items() if shelf.row(one).marked_at] == ["nobody's"]
    # Marked, and needed after all: the second look says so.
    with shelf.store.write() as session:
        for one in ids.values():
            session.get_one(Artifact, one).marked_at = utcnow() - timedelta(days=2)
    told = shelf.run()
    assert (told.collected, told.spared) == (1, 5)
    assert [name for name, one in ids.items() if shelf.row(one).collected_at] == ["nobody's"]


def test_what_was_replaced_a_moment_ago_is_warm_and_time_counts_from_its_end(shelf: Shelf) -> None:
    first, second = shelf.artifact("first", {}), shelf.artifact("second", {})
    shelf.roll(first)
    shelf.roll(second)
    with shelf.store.write() as session:
        for one in session.exec(select(Artifact)).all():
            one.created_at = one.signed_at = utcnow() - timedelta(days=365)
    warm = Rules(timedelta(0), timedelta(0), timedelta(minutes=10))
    assert shelf.run(warm).marked == shelf.run(Rules()).marked == 0
    with shelf.store.write() as session:
        for release in session.exec(select(Release)).all():
            release.deployed_at = utcnow() - timedelta(days=31 if release.artifact_id == second else 300)
    assert shelf.run(Rules()).marked == 1
    assert shelf.row(first).marked_at is not None
    # What was stopped yesterday was of use until yesterday.
    stop = shelf.world.accept_stop()
    with shelf.store.write() as session:
        rollout = claim_next(session, shelf.world.env_id)
        assert rollout is not None
        rollout.status, rollout.finished_at = "succeeded", utcnow() - timedelta(days=1)
        end_job(session, session.get_one(Job, stop.id), "succeeded")
        for release in session.exec(select(Release)).all():
            release.current = False
    assert shelf.run(Rules()).marked == 0
    assert shelf.run(Rules(timedelta(hours=1), timedelta(0))).marked == 1


def test_a_lease_keeps_a_pack_until_its_build_has_ended(shelf: Shelf) -> None:
    pack = shelf.pack(b"built upon")
    old = shelf.artifact("old", {pack: (0, b"built upon")})
    job = shelf.world.accept_build()
    with shelf.store.write() as session:
        build = session.exec(select(Build).where(Build.job_id == job.id)).one()
        assert broker.lease_packs(session, build, [pack], utcnow() + timedelta(hours=1)) == {pack}
        expired = PackLease(build_id="build_other", site_id=build.site_id, pack_sha256=pack, expires_at=utcnow())
        session.add(expired)
    shelf.run()
    told = shelf.run()
    assert (told.collected, told.packs, told.leases, shelf.has(pack)) == (1, 0, 0, True)
    assert shelf.row(old).collected_at is not None
    with shelf.store.write() as session:
        end_build(session, session.exec(select(Build).where(Build.job_id == job.id)).one(), "failed")
    told = shelf.run()
    assert (told.packs, told.leases, told.objects, shelf.has(pack)) == (1, 1, 1, False)
    with shelf.store.read() as session:
        assert session.exec(select(Pack)).first() is None
        assert session.exec(select(Content)).first() is None


def test_nobody_counts_on_what_is_being_deleted(shelf: Shelf) -> None:
    pack = shelf.pack(b"x")
    old = shelf.artifact("old", {pack: (0, b"x")})
    job = shelf.world.accept_build()
    does = shelf.retention()
    does.mark(ORDER)
    does.collect(ORDER)
    with shelf.store.write() as session:
        build = session.exec(select(Build).where(Build.job_id == job.id)).one()
        facts = {"manifest_sha256": shelf.row(old).digest}
        with pytest.raises(HeadwayError) as refused:
            broker.lease_upload(session, build, pack, utcnow() + timedelta(hours=1))
        assert (refused.value.code, refused.value.retryable) == ("upload.failed", True)
        with pytest.raises(HeadwayError) as refused:
            broker.record_output(session, build, facts, [pack])
        assert (refused.value.code, refused.value.retryable) == ("upload.failed", True)
        assert broker.lease_packs(session, build, [pack], utcnow()) == set()
    assert shelf.has(pack)
    assert does.delete(ORDER).objects == 4
    with shelf.store.write() as session:
        build = session.exec(select(Build).where(Build.job_id == job.id)).one()
        broker.lease_upload(session, build, pack, utcnow() + timedelta(hours=1))
        broker.record_output(session, build, facts, [pack])


def test_a_pack_that_is_mostly_dead_is_replaced_by_a_small_one(shelf: Shelf) -> None:
    parts = [bytes([number]) * 100 for number in range(10)]
    pack = shelf.pack(*parts)
    old = shelf.artifact("old", {pack: (0, parts[0])})
    live = shelf.artifact("live", {pack: (300, parts[3])})
    shelf.roll(old)
    shelf.roll(live)
    shelf.run()
    told = shelf.run()
    assert (told.collected, told.repacked) == (1, 1)
    digest = shelf.row(live).digest
    layout = object_key(shelf.world.site_id, digest, "layout")
    assert parse_layout(shelf.objects.held[layout]).packs == [pack], "hosts may be reading it"
    with shelf.store.read() as session:
        small = session.exec(select(Repack)).one().new_sha256
        named = select(ArtifactPack.pack_sha256).where(ArtifactPack.digest == digest)
        assert set(session.exec(named).all()) == {pack, small}
    shelf.run()
    found = parse_layout(shelf.objects.held[layout])
    assert found.packs == [small]
    (place,) = found.contents.values()
    key = pack_key(shelf.world.site_id, small)
    assert shelf.objects.get_range(key, place.offset, place.size) == parts[3]
    assert len(shelf.objects.held[key]) == 100
    shelf.run()
    assert (shelf.has(pack), shelf.has(small)) == (False, True)
    assert shelf.run() == Retained()


def test_two_repacks_of_one_layout_at_once_lose_nothing(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the schedule began and one that was asked for; or a try that was given up, and went on late."""
    parts = [bytes([number]) * 100 for number in range(10)]
    packs = [shelf.pack(*parts[:5]), shelf.pack(*parts[5:])]
    old = shelf.artifact("old", {packs[0]: (0, parts[0]), packs[1]: (0, parts[5])})
    live = shelf.artifact("live", {packs[0]: (100, parts[1]), packs[1]: (100, parts[6])})
    shelf.roll(old)
    shelf.roll(live)
    shelf.run()
    assert shelf.run().repacked == 2
    key = object_key(shelf.world.site_id, shelf.row(live).digest, "layout")
    late, get = shelf.retention(), shelf.objects.get

    def overtaken(wanted: str, max_bytes: int) -> bytes:
        raw = get(wanted, max_bytes)
        if wanted == key:
            monkeypatch.setattr(shelf.objects, "get", get)
            shelf.run()
        return raw

    monkeypatch.setattr(shelf.objects, "get", overtaken)
    late.repack(ORDER)
    for _ in range(3):
        shelf.run()
    layout = parse_layout(shelf.objects.held[key])
    for sha256, at in layout.contents.items():
        body = shelf.objects.get_range(pack_key(shelf.world.site_id, at.pack), at.offset, at.size)
        assert sha(body) == sha256
    assert not set(packs) & set(layout.packs)


def test_what_came_while_a_pack_was_copied_keeps_the_copy_too(shelf: Shelf) -> None:
    """A build that had looked before the copy was noted hands in a layout that names the old pack alone."""
    parts = [bytes([number]) * 100 for number in range(10)]
    pack = shelf.pack(*parts)
    shelf.roll(shelf.artifact("old", {pack: (0, parts[0])}))
    live = shelf.artifact("live", {pack: (300, parts[3])})
    shelf.roll(live)
    shelf.run()
    assert shelf.run().repacked == 1
    late = shelf.artifact("late", {pack: (300, parts[3])})
    shelf.roll(late)
    for _ in range(3):
        shelf.run()
    digest = shelf.row(late).digest
    with shelf.store.read() as session:
        named = session.exec(select(ArtifactPack.pack_sha256).where(ArtifactPack.digest == digest)).all()
    layout = parse_layout(shelf.objects.held[object_key(shelf.world.site_id, digest, "layout")])
    assert (layout.packs, shelf.has(pack)) == (named, False)


def test_a_report_is_kept_and_ends_its_job(shelf: Shelf) -> None:
    shelf.artifact("old", {})
    job = Job(
        id="job_01M8C3FW6W7M33SM0GJQQKHRSC",
        team_id=shelf.world.team_id,
        type="retention.run",
        resource_type="retention",
        resource_id="retention",
        input={"dry_run": True},
    )
    job_id = job.id
    with shelf.store.write() as session:
        session.add(job)
    does = shelf.retention()
    order = does.claim(JobRef(job_id))
    assert order == RetentionOrder(job_id, dry_run=True)
    assert does.claim(JobRef("")) == RetentionOrder("")
    told = does.mark(order)
    assert does.report(order, told).status == "succeeded"
    with shelf.store.read() as session:
        ended = session.get_one(Job, job_id)
        assert ended.result is not None
        assert (ended.result["marked"], ended.result["dry_run"]) == (1, True)
        assert '"artifacts": 1' in session.get_one(Mark, REPORT).value


@pytest.mark.slow
def test_a_collection_that_runs_during_builds_and_rolls_takes_nothing_of_theirs(shelf: Shelf) -> None:
    """Rollouts are accepted and ended, and packs leased and dropped, while everything is collected at once."""
    packs = [shelf.pack(bytes([number])) for number in range(6)]
    ids = [
        shelf.artifact(f"a{number}", {one: (0, bytes([number])), packs[0]: (0, b"\0")})
        for number, one in enumerate(packs)
    ]
    over, faults = time.monotonic() + 6, []

    def collect() -> None:
        while time.monotonic() < over:
            shelf.run()

    def use(number: int) -> None:
        while time.monotonic() < over:
            artifact_id = ids[number % len(ids)]
            number += 1
            try:
                with shelf.store.write() as session:
                    site = session.get_one(Site, shelf.world.site_id)
                    environment = session.get_one(Environment, shelf.world.env_id, with_for_update=True)
                    artifact = session.get_one(Artifact, artifact_id)
                    job_id = accept_rollout(session, site, environment, artifact, {}).id
            except HeadwayError as error:
                if error.code != "artifact.collected":
                    faults.append(error.code)
                revive(artifact_id)
                continue
            for _ in range(5):
                with shelf.store.read() as session:
                    row = session.get_one(Artifact, artifact_id)
                    names = session.exec(select(ArtifactPack.pack_sha256).where(ArtifactPack.digest == row.digest))
                    missing = [one for one in names.all() if not shelf.has(one)]
                    if row.collected_at is not None or missing:
                        faults.append(f"{row.collected_at} {missing}")
            with shelf.store.write() as session:
                rollout = session.exec(select(Rollout).where(col(Rollout.job_id) == job_id)).one()
                end_rollout(session, rollout, "canceled")

    def revive(artifact_id: str) -> None:
        """As a build of the same does: leased, uploaded anew where it is missing, recorded, signed."""
        job = shelf.world.accept_build()
        number = ids.index(artifact_id)
        wanted = {packs[number]: bytes([number]), packs[0]: b"\0"}
        digest, site_id = sha(f"a{number}"), shelf.world.site_id
        places = {sha(body): Location(pack, 0, 1) for pack, body in wanted.items()}
        while True:
            try:
                for pack, body in wanted.items():
                    with shelf.store.write() as session:
                        build = session.exec(select(Build).where(Build.job_id == job.id)).one()
                        broker.lease_upload(session, build, pack, utcnow() + timedelta(hours=1))
                    shelf.objects.put_new(pack_key(site_id, pack), body, pack)
                    with shelf.store.write() as session:
                        broker.record_pack(session, build, (pack, 1), [(sha(body), 0, 1)])
                for part, raw in (("manifest", b"m"), ("layout", Layout(places).raw), ("bundle", b"b")):
                    shelf.objects.put_new(object_key(site_id, digest, part), raw, sha(raw))
                with shelf.store.write() as session:
                    build = session.exec(select(Build).where(Build.job_id == job.id)).one()
                    broker.record_output(session, build, {"manifest_sha256": digest}, wanted)
                if all(object_key(site_id, digest, part) in shelf.objects.held for part in collection.PARTS):
                    break
            except HeadwayError as error:
                if error.code != "upload.failed":
                    faults.append(error.code)
        with shelf.store.write() as session:
            session.get_one(Artifact, artifact_id, with_for_update=True).collected_at = None
            build = session.exec(select(Build).where(Build.job_id == job.id)).one()
            build.artifact_id = artifact_id
            end_build(session, build, "succeeded")
            end_job(session, session.get_one(Job, job.id), "succeeded")

    threads = [threading.Thread(target=collect), *(threading.Thread(target=use, args=(n,)) for n in range(3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []
    assert not any(thread.is_alive() for thread in threads)
    with shelf.store.read() as session:
        for row in session.exec(select(Artifact).where(col(Artifact.collected_at).is_(None))).all():
            named = session.exec(select(ArtifactPack.pack_sha256).where(ArtifactPack.digest == row.digest)).all()
            assert all(shelf.has(one) for one in named)
            assert object_key(row.site_id, row.digest, "layout") in shelf.objects.held
