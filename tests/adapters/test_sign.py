"""The signing activity against a real object store and a real database."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import SQLModel, delete, select, update
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.ledger import Ledger
from activities.recorder import Recorder
from activities.sign import Signer, artifact_id
from adapters.artifact.manifest import File, Manifest, make_manifest
from adapters.ledger.root import ROOT_NAME, parse_root
from adapters.objects import ObjectStore
from adapters.sbom.component import Component
from adapters.sbom.document import Subject, make_sbom
from adapters.signer.bundle import MAX_BUNDLE, Policy, Verified, attest, check
from adapters.signer.folder import KeyFolder
from adapters.signer.keys import Keyring, SigningKey, create_key
from headway.errors import HeadwayError
from headway.ids import new_id
from store.bills import bill_key, record_bill
from store.ledger import entries
from store.models import Artifact, Build, Environment, Project, Site, Team, utcnow
from store.session import Store
from temporal.messages import BuildOrder, Signed
from tests.adapters.weed import open_store, running_weed


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with running_weed(tmp_path_factory.mktemp("weed")) as address:
        yield open_store(address)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return create_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(f"sqlite:///{tmp_path / 'headway.db'}")
    SQLModel.metadata.create_all(store.engine)
    yield store
    store.close()


@pytest.fixture
def site(store: Store) -> Site:
    team = Team(id=new_id("team"), name="Shop", slug="shop")
    project = Project(id=new_id("proj"), team_id=team.id, name="Shop", slug="shop")
    site = Site(
        id=new_id("site"),
        team_id=team.id,
        project_id=project.id,
        name="Shop",
        slug="shop",
        repository="https://bob:hunter2@git.example.test/shop.git",
    )
    env = Environment(id=new_id("env"), site_id=site.id, kind="production", slug="production", branch="main")
    site.production_env_id = env.id
    with store.write() as session:
        for row in (team, project, site, env):
            session.add(row)
            session.flush()
    return site


def manifest(text: bytes = b"hello") -> Manifest:
    return make_manifest([File("index.html", "644", len(text), hashlib.sha256(text).hexdigest())])


def built(store: Store, objects: ObjectStore, site: Site, made: Manifest) -> BuildOrder:
    """A build that the builder has finished, with its manifest in the object store."""
    build = Build(
        id=new_id("build"),
        site_id=site.id,
        env_id=site.production_env_id or "",
        job_id=new_id("job"),
        ref="main",
        profile="static",
        status="running",
        attempt=1,
        commit_sha="1" * 40,
        source_sha256="2" * 64,
        plan={"profile": "static", "command": None},
        manifest_sha256=made.digest,
        started_at=utcnow(),
    )
    with store.write() as session:
        session.add(build)
    objects.put_new(f"sites/{site.id}/artifacts/{made.digest}/manifest.json", made.raw, made.digest)
    return BuildOrder(build.job_id, build.id, build.site_id, build.env_id, build.ref)


def artifacts(store: Store) -> list[Artifact]:
    with store.read() as session:
        return list(session.exec(select(Artifact)))


def bundle_of(objects: ObjectStore, site: Site, digest: str) -> bytes:
    return objects.get(f"sites/{site.id}/artifacts/{digest}/bundle.json", MAX_BUNDLE)


def test_a_build_becomes_a_signed_artifact(store: Store, objects: ObjectStore, key: SigningKey, site: Site) -> None:
    made = manifest()
    order = built(store, objects, site, made)
    signed = Signer(store, objects, key).sign(order)
    [row] = artifacts(store)
    assert signed == Signed(order.build_id, row.id, made.digest)
    assert (row.digest, row.files, row.size_bytes, row.kind, row.key_hint) == (made.digest, 1, 5, "static", key.hint)
    with store.read() as session:
        build = session.get(Build, order.build_id)
        assert build is not None
        assert build.artifact_id == row.id
    raw = bundle_of(objects, site, made.digest)
    verified = check(raw, made.digest, Keyring.of(key), Policy(site.id))
    assert verified.build_id == order.build_id
    assert verified.statement["subject"] == [{"name": "manifest.json", "digest": {"sha256": made.digest}}]
    assert "hunter2" not in json.dumps(verified.statement)


def test_a_retry_changes_nothing(store: Store, objects: ObjectStore, key: SigningKey, site: Site) -> None:
    order = built(store, objects, site, manifest())
    signer = Signer(store, objects, key)
    first = signer.sign(order)
    bundle = bundle_of(objects, site, first.digest)
    assert signer.sign(order) == first
    with store.write() as session:  # as after a crash between the row of the artifact and the one of the build
        build = session.get(Build, order.build_id)
        assert build is not None
        build.artifact_id = None
    assert signer.sign(order) == first
    assert len(artifacts(store)) == 1
    assert bundle_of(objects, site, first.digest) == bundle


def test_another_build_of_the_same_bytes_is_the_same_artifact(
    store: Store, objects: ObjectStore, key: SigningKey, site: Site
) -> None:
    signer = Signer(store, objects, key)
    first = signer.sign(built(store, objects, site, manifest()))
    bundle = bundle_of(objects, site, first.digest)
    second = signer.sign(built(store, objects, site, manifest()))
    assert second.artifact_id == first.artifact_id
    assert bundle_of(objects, site, first.digest) == bundle


def test_the_first_try_looks_for_no_bundle_and_keeps_the_one_that_is_there(
    store: Store, objects: ObjectStore, key: SigningKey, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, get = manifest(b"there"), objects.get
    read: list[str] = []

    def noting(name: str, most: int) -> bytes:
        read.append(name.rpartition("/")[2])
        return get(name, most)

    monkeypatch.setattr(objects, "get", noting)
    signer = Signer(store, objects, key)
    first = ActivityEnvironment().run(signer.sign, built(store, objects, site, made))
    assert read == ["manifest.json"]
    bundle = bundle_of(objects, site, made.digest)
    with store.write() as session:  # as after a crash between the bundle and its row
        session.exec(update(Build).values(artifact_id=None))
        session.exec(delete(Artifact))
    second = ActivityEnvironment().run(signer.sign, built(store, objects, site, made))
    assert second.digest == first.digest
    assert bundle_of(objects, site, made.digest) == bundle


def test_signers_at_once_make_one_artifact(store: Store, objects: ObjectStore, key: SigningKey, site: Site) -> None:
    made = manifest(b"raced")
    orders = [built(store, objects, site, made) for _ in range(3)] * 2
    signer = Signer(store, objects, key)
    with ThreadPoolExecutor(6) as pool:
        ids = {one.artifact_id for one in pool.map(signer.sign, orders)}
    assert len(ids) == 1
    assert [row.id for row in artifacts(store)] == list(ids)
    check(bundle_of(objects, site, made.digest), made.digest, Keyring.of(key), Policy(site.id))


def test_a_changed_manifest_is_not_signed(store: Store, objects: ObjectStore, key: SigningKey, site: Site) -> None:
    made = manifest(b"changed")
    order = built(store, objects, site, made)
    name = f"sites/{site.id}/artifacts/{made.digest}/manifest.json"
    objects.delete([name])
    evil = manifest(b"evil")
    objects.put_new(name, evil.raw, evil.digest)
    with pytest.raises(ApplicationError) as caught:
        Signer(store, objects, key).sign(order)
    assert caught.value.type == "artifact.signature_invalid"
    assert artifacts(store) == []


def test_a_foreign_bundle_without_an_artifact_is_replaced(
    store: Store, objects: ObjectStore, key: SigningKey, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    made = manifest(b"squatted")
    order = built(store, objects, site, made)
    squat = b'{"mediaType": "mine"}'
    objects.put_new(f"sites/{site.id}/artifacts/{made.digest}/bundle.json", squat, hashlib.sha256(squat).hexdigest())
    Signer(store, objects, key).sign(order)
    check(bundle_of(objects, site, made.digest), made.digest, Keyring.of(key), Policy(site.id))
    assert "replacing a bundle" in caplog.text


def test_a_foreign_bundle_of_an_artifact_is_an_error(
    store: Store, objects: ObjectStore, key: SigningKey, site: Site, tmp_path: Path
) -> None:
    made = manifest(b"swapped")
    signer = Signer(store, objects, key)
    first = signer.sign(built(store, objects, site, made))
    forged = attest(b"{}", create_key(tmp_path / "other"))
    name = f"sites/{site.id}/artifacts/{made.digest}/bundle.json"
    objects.delete([name])
    objects.put_new(name, forged, hashlib.sha256(forged).hexdigest())
    with pytest.raises(ApplicationError) as caught:
        signer.sign(built(store, objects, site, made))
    assert caught.value.type == "artifact.signature_invalid"
    assert objects.get(name, MAX_BUNDLE) == forged
    assert [row.id for row in artifacts(store)] == [first.artifact_id]


def test_a_lost_bundle_is_made_again(store: Store, objects: ObjectStore, key: SigningKey, site: Site) -> None:
    made = manifest(b"lost")
    signer = Signer(store, objects, key)
    first = signer.sign(built(store, objects, site, made))
    objects.delete([f"sites/{site.id}/artifacts/{made.digest}/bundle.json"])
    again = built(store, objects, site, made)
    assert signer.sign(again).artifact_id == first.artifact_id
    raw = bundle_of(objects, site, made.digest)
    assert check(raw, made.digest, Keyring.of(key), Policy(site.id)).build_id == again.build_id


@pytest.mark.parametrize("status", ["failed", "canceled", "superseded"])
def test_an_ended_build_is_not_signed(
    store: Store, objects: ObjectStore, key: SigningKey, site: Site, status: str
) -> None:
    order = built(store, objects, site, manifest())
    with store.write() as session:
        build = session.get(Build, order.build_id)
        assert build is not None
        build.status, build.finished_at = status, utcnow()
    with pytest.raises(ApplicationError) as caught:
        Signer(store, objects, key).sign(order)
    assert caught.value.type == "attempt.stale"


def test_an_order_for_another_site_finds_no_build(
    store: Store, objects: ObjectStore, key: SigningKey, site: Site
) -> None:
    order = built(store, objects, site, manifest())
    with pytest.raises(ApplicationError) as caught:
        Signer(store, objects, key).sign(BuildOrder(order.job_id, order.build_id, new_id("site"), order.env_id, "main"))
    assert caught.value.type == "build.not_found"


def test_artifact_ids_are_minted_the_same_way_twice() -> None:
    now = utcnow()
    assert artifact_id("site_a", "d", now) == artifact_id("site_a", "d", now)
    assert artifact_id("site_a", "d", now) != artifact_id("site_b", "d", now)
    assert len(artifact_id("site_a", "d", now)) == len(new_id("art"))


# with a ledger


@pytest.fixture
def ledger(store: Store, tmp_path: Path) -> Ledger:
    return Ledger.open(store, tmp_path / "ledger", "ledger.example.test")


def logged(store: Store) -> list[str]:
    with store.read() as session:
        return [row.subject for row in entries(session, 0, 100)]


def test_each_new_bundle_carries_its_entry(
    store: Store, objects: ObjectStore, key: SigningKey, site: Site, ledger: Ledger
) -> None:
    made, other = manifest(b"entered"), manifest(b"entered second")
    orders = [built(store, objects, site, one) for one in (made, other)]
    signer = Signer(store, objects, key, ledger=ledger)
    for order in orders:
        signer.sign(order)
    assert [row.log_index for row in artifacts(store)] == [0, 1]
    assert logged(store) == [f"build:{order.build_id}" for order in orders]
    for index, one in enumerate((made, other)):
        raw = bundle_of(objects, site, one.digest)
        verified = check(raw, one.digest, Keyring.of(key), Policy(site.id), ledger=ledger)
        assert (verified.log_index, verified.build_id) == (index, orders[index].build_id)


def test_a_signer_killed_after_the_entry_signs_the_same_bundle_again(
    store: Store, objects: ObjectStore, key: SigningKey, site: Site, ledger: Ledger
) -> None:
    made = manifest(b"killed")
    order = built(store, objects, site, made)

    class Dying(Signer):
        def _check(self, *_: object) -> Verified:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Dying(store, objects, key, ledger=ledger).sign(order)
    assert logged(store) == [f"build:{order.build_id}"]
    Signer(store, objects, key, ledger=ledger).sign(order)
    assert logged(store) == [f"build:{order.build_id}"]
    with store.read() as session:
        [row] = entries(session, 0, 2)
    stands = json.loads(bundle_of(objects, site, made.digest))
    assert stands["dsseEnvelope"] == json.loads(row.envelope)


def test_a_bundle_of_before_the_ledger_gets_its_entry_before_hosts_demand_it(
    store: Store, objects: ObjectStore, key: SigningKey, site: Site, tmp_path: Path
) -> None:
    made, late = manifest(b"old"), manifest(b"slipped in")
    for one in (made, late):
        Signer(store, objects, key).sign(built(store, objects, site, one))
    ledger = Ledger.open(store, tmp_path / "ledger", "ledger.example.test")
    with store.write() as session:
        old, new = (session.exec(select(Artifact).where(Artifact.digest == one.digest)).one() for one in (made, late))
        old.signed_at, new.signed_at = ledger.trusted.start - timedelta(days=1), utcnow()
    again = built(store, objects, site, made)
    with pytest.raises(ApplicationError, match="older than the ledger") as caught:
        Signer(store, objects, key, ledger=ledger).sign(again)
    assert not caught.value.non_retryable
    recorder = Recorder(store, objects, ledger, key, tmp_path / "ledger")
    assert not (tmp_path / "ledger" / ROOT_NAME).exists()
    assert recorder.adopt()
    root = parse_root((tmp_path / "ledger" / ROOT_NAME).read_bytes())
    raw = bundle_of(objects, site, made.digest)
    assert check(raw, made.digest, Keyring.of(key), Policy(site.id), ledger=root).log_index == 0
    with pytest.raises(HeadwayError, match="no entry"):
        check(bundle_of(objects, site, late.digest), late.digest, Keyring.of(key), Policy(site.id), ledger=root)
    recorder.adopt()
    assert len(logged(store)) == 1
    Signer(store, objects, key, ledger=ledger).sign(again)
    assert {row.digest: row.log_index for row in artifacts(store)} == {made.digest: 0, late.digest: None}


def test_after_a_revocation_the_same_bytes_are_signed_anew(
    store: Store, objects: ObjectStore, site: Site, ledger: Ledger, tmp_path: Path
) -> None:
    made = manifest(b"revoked")
    keys = KeyFolder(tmp_path / "keys")
    signer = Signer(store, objects, keys, ledger=ledger)
    first = signer.sign(built(store, objects, site, made))
    old = keys.current().hint
    keys.revoke(old, utcnow())
    second = signer.sign(built(store, objects, site, made))
    [row] = artifacts(store)
    assert (second.artifact_id, row.log_index, row.key_hint) == (first.artifact_id, 1, keys.current().hint)
    raw = bundle_of(objects, site, made.digest)
    verified = check(raw, made.digest, keys.ring(), Policy(site.id), ledger=ledger)
    assert verified.key_hint != old
    assert verified.build_id == second.build_id == row.build_id


def test_the_statement_names_the_bill_of_materials(
    store: Store, objects: ObjectStore, key: SigningKey, site: Site
) -> None:
    """Re-read and hashed: one that was exchanged behind the row is not signed."""
    made = manifest(b"with a bill")
    order = built(store, objects, site, made)
    raw = make_sbom(Subject(site.id, made.digest, "1" * 40, 0), [Component("npm", "a", "1")])
    sha256 = hashlib.sha256(raw).hexdigest()
    with store.write() as session:
        record_bill(session, session.get_one(Build, order.build_id), made.digest, sha256, 1)
    objects.replace(bill_key(site.id, made.digest, sha256), b"{}", hashlib.sha256(b"{}").hexdigest())
    with pytest.raises(ApplicationError) as caught:
        Signer(store, objects, key).sign(order)
    assert caught.value.type == "artifact.signature_invalid"
    objects.replace(bill_key(site.id, made.digest, sha256), raw, sha256)
    Signer(store, objects, key).sign(order)
    payload = json.loads(bundle_of(objects, site, made.digest))["dsseEnvelope"]["payload"]
    details = json.loads(base64.b64decode(payload))["predicate"]["runDetails"]
    assert details["byproducts"] == [
        {"name": "sbom.cdx.json", "digest": {"sha256": sha256}, "mediaType": "application/vnd.cyclonedx+json"}
    ]
