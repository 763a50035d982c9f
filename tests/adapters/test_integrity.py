"""Damage in the object store, found and mended by the real parts: weed, rows, a host's folders, presigned addresses."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlmodel import SQLModel, col, select

from activities.ledger import About, Ledger
from activities.scrub import Scrubs
from adapters.artifact.layout import Layout, Location, parse_layout
from adapters.artifact.manifest import File, Manifest, make_manifest
from adapters.hosting.fetch import HttpDownloads
from adapters.hosting.host import Host, Limits
from adapters.hosting.layout import HostFolders
from adapters.hosting.lending import HttpUploads, Lender
from adapters.objects import ObjectStore
from adapters.signer.bundle import attest
from adapters.signer.keys import create_key
from adapters.signer.statement import BuildFacts, statement
from api.internal.mending import Mending
from headway.broker import Offer, RollSpec
from headway.errors import HeadwayError
from headway.ids import new_id
from store import integrity
from store.artifacts import object_key, pack_key
from store.models import Artifact, ArtifactPack, Content, Environment, Pack, Release, utcnow
from store.models_integrity import Finding
from store.models_lifecycle import Drift
from store.models_retention import Doomed
from store.session import Store
from temporal.messages import Damaged, Mend, MendTried, ScrubOrder, Settled
from tests.adapters.sites import keep_on
from tests.adapters.weed import open_store, running_weed
from tests.workflows.rows import World

FILES = {"index.html": b"<h1>whole</h1>", "a/app.js": b"let a = 1;" * 1000, "a/b/logo.png": bytes(range(256)) * 64}


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with running_weed(tmp_path_factory.mktemp("weed")) as address:
        yield open_store(address)


@dataclass
class Shop:
    """A site whose artifact lies in the object store and on hosts. `change` damages an object."""

    store: Store
    world: World
    objects: ObjectStore
    folder: Path
    scrubs: Scrubs
    manifest: Manifest
    pack: bytes
    downloads: HttpDownloads
    uploads: HttpUploads
    hosts: dict[str, Host] = field(default_factory=dict)

    @property
    def pack_sha(self) -> str:
        return hashlib.sha256(self.pack).hexdigest()

    def key(self, name: str) -> str:
        if name == "pack":
            return pack_key(self.world.site_id, self.pack_sha)
        return object_key(self.world.site_id, self.manifest.digest, name)

    def held(self, name: str) -> bytes | None:
        try:
            return self.objects.get(self.key(name), 1 << 30)
        except HeadwayError:
            return None

    def change(self, name: str, change: Callable[[bytes], bytes]) -> bytes:
        raw = change(self.held(name) or b"")
        self.objects.replace(self.key(name), raw, hashlib.sha256(raw).hexdigest())
        return raw

    def join(self, host_id: str) -> Host:
        """A host that serves the artifact, fetched from the object store as it is now."""
        found = Host(HostFolders(self.folder / host_id), lambda *_: None, self.downloads, Limits(floor=0))

        def read(name: str) -> str:
            return self.objects.presign_get(self.key(name), 600)

        spec = RollSpec(
            rollout_id="dep_01TESTTESTTESTTESTTESTTEST",
            job_id="job_01TESTTESTTESTTESTTESTTEST",
            kind="deploy",
            site_id=self.world.site_id,
            env_id=self.world.env_id,
            artifact_id="art_01TESTTESTTESTTESTTESTTEST",
            digest=self.manifest.digest,
            manifest_url=read("manifest"),
            layout_url=read("layout"),
            bundle_url=read("bundle"),
            packs={self.pack_sha: read("pack")},
            apply_seq=1,
            undo_seq=2,
            hostnames=["acme.localhost"],
        )
        found.place(spec, 1, keep_on)
        found.environment(self.world.env_id).switch(1)
        self.hosts[host_id] = found
        with self.store.write() as session:
            session.get_one(Environment, self.world.env_id).hosts = sorted(self.hosts)
        return found

    def spoil(self, host_id: str, path: str, change: Callable[[bytes], bytes] = lambda raw: raw[:-1] + b"?") -> Path:
        """A file of a host's store, by the artifact's path, has other bytes under its seal."""
        sha = hashlib.sha256(FILES[path]).hexdigest()
        [file] = self.hosts[host_id].folders.store.glob(f"*/{sha}-644")
        whole = file.read_bytes()
        file.chmod(0o600)
        file.write_bytes(change(whole))
        file.chmod(0o444)
        os.utime(file, ns=(0, 0))
        return file

    def scrub(self) -> list[MendTried]:
        """What the workflow does, without a server: look, ask the hosts, settle."""
        looked = self.scrubs.look(ScrubOrder("job_x", whole=True))
        while looked.more:
            more = self.scrubs.look(ScrubOrder("job_x", whole=True))
            looked = type(looked)(0, 0, looked.damaged + more.damaged, more.more)
        return [self.mend(one) for one in looked.damaged]

    def mend(self, damaged: Damaged) -> MendTried:
        tried: list[MendTried] = []
        for host_id in damaged.hosts:
            tried.append(self.ask(host_id, damaged))
            if not tried[-1].why:
                break
        if not damaged.hosts:
            tried.append(self.scrubs.remake(Mend(damaged.finding_id, damaged.object, damaged.name)))
        return self.scrubs.settle(Settled(damaged.finding_id, tuple(tried)))

    def ask(self, host_id: str, damaged: Damaged) -> MendTried:
        lender = Lender(self.hosts[host_id], self.downloads, self.uploads)
        broker = Mending(self.store, self.objects)
        try:
            size = lender.manifest_size(damaged.name) if damaged.object == "manifest" else 0
            lender.mend(broker.spec(damaged.finding_id, host_id, Offer(size=size)), keep_on)
        except HeadwayError as error:
            return MendTried(damaged.finding_id, host_id, error.message)
        return MendTried(damaged.finding_id, host_id)

    def findings(self) -> list[Finding]:
        with self.store.read() as session:
            return list(session.exec(select(Finding).order_by(col(Finding.found_at))).all())


@pytest.fixture(scope="module")
def ways() -> Iterator[tuple[HttpDownloads, HttpUploads]]:
    down, up = HttpDownloads(), HttpUploads()
    yield down, up
    down.close()
    up.close()


@pytest.fixture
def shop(tmp_path: Path, objects: ObjectStore, ways: tuple[HttpDownloads, HttpUploads]) -> Iterator[Shop]:
    store = Store.open(f"sqlite:///{tmp_path}/headway.db")
    SQLModel.metadata.create_all(store.engine)
    world = World.make(store)
    pack, located, entries = bytearray(), {}, []
    for path, data in FILES.items():
        sha = hashlib.sha256(data).hexdigest()
        entries.append(File(path, "644", len(data), sha))
        located[sha] = (len(pack), len(data))
        pack += data
    manifest, pack_sha = make_manifest(entries), hashlib.sha256(pack).hexdigest()
    layout = Layout({sha: Location(pack_sha, *at) for sha, at in located.items()})
    ledger, signing = Ledger.open(store, tmp_path / "ledger", "ledger.test"), create_key(tmp_path / "keys")
    facts = BuildFacts(
        site_id=world.site_id,
        env_id=world.env_id,
        build_id="build_X",
        digest=manifest.digest,
        repository="https://git.example.test/shop.git",
        ref="main",
        commit_sha="1" * 40,
        source_sha256="2" * 64,
    )
    for number in range(3):
        about = About(f"build:build_{'X' if number == 1 else number}", "build", world.site_id)
        made = attest(statement(facts), signing, ledger=ledger.about(about))
        bundle = made if number == 1 else b""
        index = json.loads(made)["verificationMaterial"]["tlogEntries"][0]["logIndex"]
        if number == 1:
            kept, log_index = bundle, int(index)
    ledger.publish(tmp_path / "ledger")
    artifact_id = world.artifact(manifest.digest)
    with store.write() as session:
        session.get_one(Artifact, artifact_id).log_index = log_index
        session.add(Pack(site_id=world.site_id, sha256=pack_sha, size=len(pack), created_at=utcnow()))
        session.add(ArtifactPack(site_id=world.site_id, digest=manifest.digest, pack_sha256=pack_sha))
        for sha, (offset, size) in located.items():
            session.add(Content(site_id=world.site_id, sha256=sha, pack_sha256=pack_sha, offset=offset, size=size))
    shop = Shop(store, world, objects, tmp_path, Scrubs(store, objects), manifest, bytes(pack), *ways)
    for name, body in (("manifest", manifest.raw), ("layout", layout.raw), ("bundle", kept), ("pack", bytes(pack))):
        objects.put_new(shop.key(name), body, hashlib.sha256(body).hexdigest())
    yield shop
    store.close()


def flip(raw: bytes) -> bytes:
    return raw[:-3] + bytes([raw[-3] ^ 1]) + raw[-2:]


@pytest.mark.slow
def test_what_is_whole_is_read_and_left_alone(shop: Shop) -> None:
    shop.join("local")
    looked = shop.scrubs.look(ScrubOrder(""))
    assert (looked.objects, looked.bytes, looked.damaged) == (4, len(shop.pack), ())
    assert shop.findings() == []


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, lambda raw: raw[: len(raw) // 2], lambda raw: raw + b"more", None])
@pytest.mark.parametrize("name", ["pack", "manifest"])
def test_a_host_mends_what_is_named_by_its_hash(shop: Shop, name: str, damage: Callable[[bytes], bytes] | None) -> None:
    shop.join("local")
    right = shop.held(name)
    if damage is None:
        shop.objects.delete([shop.key(name)])
    else:
        assert shop.change(name, damage) != right
    [tried] = shop.scrub()
    assert (tried.by, tried.why) == ("local", "")
    assert shop.held(name) == right
    [row] = shop.findings()
    assert (row.object, row.damage, row.mended_by) == (name, "missing" if damage is None else "changed", "local")
    assert shop.scrub() == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["layout", "bundle"])
def test_rows_and_ledger_make_the_other_documents_anew(shop: Shop, name: str) -> None:
    right = shop.held(name) or b""
    for damage in (flip, lambda _: b"{}", None):
        if damage is None:
            shop.objects.delete([shop.key(name)])
        else:
            shop.change(name, damage)
        [tried] = shop.scrub()
        assert (tried.by, tried.why) == ("rows", "")
        now = json.loads(shop.held(name) or b"")
        if name == "layout":
            assert now == json.loads(right)
        else:  # proven against the ledger's newest checkpoint
            assert now["dsseEnvelope"] == json.loads(right)["dsseEnvelope"]
        assert shop.scrub() == []


@pytest.mark.slow
def test_a_layout_with_a_wrong_place_is_found_and_one_that_was_repacked_is_not(shop: Shop) -> None:
    layout = parse_layout(shop.held("layout") or b"")
    first, second, *_ = sorted(layout.contents, key=lambda sha: layout.contents[sha].offset)
    at = layout.contents[second]
    wrong = Layout({**layout.contents, second: Location(at.pack, at.offset + 1, at.size)}).raw
    shop.change("layout", lambda _: wrong)
    assert [one.by for one in shop.scrub()] == ["rows"]
    with shop.store.write() as session:
        session.get_one(Content, (shop.world.site_id, first)).pack_sha256 = "f" * 64
    assert shop.scrub() == [], "a row that names another pack by now is no damage"


def test_what_a_host_has_not_whole_is_taken_from_what_is_left(shop: Shop) -> None:
    """Half of it is right here, the other half there: together they have the pack's hash."""
    shop.join("local")
    shop.spoil("local", "index.html")
    sha = hashlib.sha256(FILES["a/app.js"]).hexdigest()
    with shop.store.read() as session:
        at = session.get_one(Content, (shop.world.site_id, sha)).offset
    shop.change("pack", lambda raw: raw[:at] + b"\0" * 8 + raw[at + 8 :])
    assert [one.by for one in shop.scrub()] == ["local"]
    assert shop.held("pack") == shop.pack


@pytest.mark.slow
def test_another_host_helps_where_the_first_cannot(shop: Shop) -> None:
    shop.join("a-host")
    shop.join("b-host")
    shop.spoil("a-host", "index.html")
    shop.objects.delete([shop.key("pack")])
    assert [one.by for one in shop.scrub()] == ["b-host"]
    [row] = shop.findings()
    sha = hashlib.sha256(FILES["index.html"]).hexdigest()
    assert row.tried[0]["by"] == "a-host"
    assert sha in row.tried[0]["why"]
    assert shop.held("pack") == shop.pack


def test_both_copies_bad_is_a_clear_finding_and_nothing_is_changed(shop: Shop) -> None:
    shop.join("local")
    file = shop.spoil("local", "index.html")
    spoiled = file.read_bytes()
    changed = shop.change("pack", lambda raw: b"\0" * len(raw))
    [tried] = shop.scrub()
    assert tried.by == ""
    assert f"local: The content {hashlib.sha256(FILES['index.html']).hexdigest()} is whole neither here" in tried.why
    assert shop.held("pack") == changed
    assert file.read_bytes() == spoiled
    [row] = shop.findings()
    assert (row.mended_at, row.settled_at is not None, row.damage) == (None, True, "changed")
    # Found again it is the same finding; once a copy is whole again, that one mends it.
    file.chmod(0o600)
    file.write_bytes(FILES["index.html"])
    assert [one.by for one in shop.scrub()] == ["local"]
    [row] = shop.findings()
    assert row.mended_by == "local"


@pytest.mark.slow
def test_an_object_that_was_put_right_meanwhile_is_not_written_over(shop: Shop) -> None:
    shop.join("local")
    shop.change("pack", flip)
    looked = shop.scrubs.look(ScrubOrder(""))
    shop.change("pack", lambda _: shop.pack)
    [damaged] = looked.damaged
    assert "another by now" in shop.ask("local", damaged).why
    assert shop.mend(damaged).why == "", "read again, it is whole"


@pytest.mark.slow
def test_an_address_takes_nothing_but_the_right_bytes(shop: Shop, tmp_path: Path) -> None:
    """What a stolen host could do with it: nothing."""
    shop.join("local")
    changed = shop.change("pack", flip)
    [damaged] = shop.scrubs.look(ScrubOrder("")).damaged
    spec = Mending(shop.store, shop.objects).spec(damaged.finding_id, "local", Offer())
    (tmp_path / "wrong").write_bytes(flip(flip(flip(shop.pack))))
    for headers in (spec.put_headers, {**spec.put_headers, "x-amz-checksum-sha256": "AAAA"}, {}):
        with pytest.raises(HeadwayError):
            shop.uploads.put(spec.put_url, headers, tmp_path / "wrong")
        assert shop.held("pack") == changed


@pytest.mark.slow
def test_only_hosts_of_the_site_are_told_and_only_of_what_is_open(shop: Shop) -> None:
    shop.join("local")
    shop.change("manifest", flip)
    [damaged] = shop.scrubs.look(ScrubOrder("")).damaged
    broker = Mending(shop.store, shop.objects)
    for host_id, finding_id in (("stranger", damaged.finding_id), ("local", "find_01XXXXXXXXXXXXXXXXXXXXXXXX")):
        with pytest.raises(HeadwayError) as caught:
            broker.spec(finding_id, host_id, Offer(size=3))
        assert caught.value.code == "finding.not_found"
    shop.mend(damaged)
    with pytest.raises(HeadwayError):
        broker.spec(damaged.finding_id, "local", Offer(size=3))


@pytest.mark.slow
def test_what_is_being_collected_is_not_missing(shop: Shop) -> None:
    shop.objects.delete([shop.key("pack"), shop.key("manifest")])
    with shop.store.write() as session:
        session.add(Doomed(site_id=shop.world.site_id, key=shop.key("pack")))
        for row in session.exec(select(Artifact)).all():
            row.collected_at = utcnow()
    assert shop.scrub() == []
    assert shop.findings() == []


@pytest.mark.slow
def test_a_scrub_goes_on_from_where_the_last_one_ended(shop: Shop) -> None:
    with shop.store.write() as session:
        for number in range(5):
            sha = f"{number:064x}"
            session.add(Pack(site_id=shop.world.site_id, sha256=sha, size=10, created_at=utcnow()))
    scrubs = Scrubs(shop.store, shop.objects, budget=1)
    seen: list[str] = []
    for _ in range(7):
        seen += [one.name for one in scrubs.look(ScrubOrder("")).damaged if one.object == "pack"]
    assert seen[:5] == [f"{number:064x}" for number in range(5)], "one pack a time, each in its turn"


@pytest.mark.slow
def test_what_a_host_lost_is_looked_at_first(shop: Shop) -> None:
    shop.join("local")
    with shop.store.write() as session:
        artifact = session.exec(select(Artifact)).one()
        release = Release(
            id=new_id("rel"),
            site_id=shop.world.site_id,
            env_id=shop.world.env_id,
            rollout_id=new_id("dep"),
            artifact_id=artifact.id,
            seq=1,
        )
        session.add(release)
        session.get_one(Environment, shop.world.env_id).active_release_id = release.id
        integrity.keep_place(session, "", integrity.Place("art_ZZ", "site_ZZ", "f"))
        session.add(
            Drift(
                id=new_id("drift"),
                site_id=shop.world.site_id,
                env_id=shop.world.env_id,
                host_id="local",
                kind="contents",
                seq=1,
                what="index.html",
                found_at=utcnow(),
            )
        )
    shop.change("pack", flip)
    assert [one.name for one in shop.scrubs.look(ScrubOrder("", suspects=True)).damaged] == [shop.pack_sha]
