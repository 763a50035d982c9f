"""A host believes the keys that it pinned, for the site that it was asked for, and nothing else."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from activities.ledger import About, Ledger
from activities.recorder import Recorder
from adapters.hosting.host import Host, Limits
from adapters.hosting.layout import HostFolders
from adapters.hosting.trust import Trust
from adapters.ledger.keyring import open_keyring
from adapters.ledger.root import ROOT_NAME
from adapters.signer.bundle import attest
from adapters.signer.folder import KeyFolder
from adapters.signer.keys import SigningKey, create_key, key_hint, publish_key
from adapters.signer.statement import BuildFacts, statement
from headway.errors import HeadwayError
from store.ledger import document, entries
from store.migrations import upgrade
from store.models import utcnow
from store.session import Store
from tests.adapters.sites import ENV, SITE, Shelf, keep_on
from tests.api.doubles import MemoryObjects

DIGEST = hashlib.sha256(b"manifest").hexdigest()


FACTS = BuildFacts(
    site_id=SITE,
    env_id=ENV,
    build_id="build_01KVT0000000000000000000A",
    digest=DIGEST,
    repository="https://git.example.test/shop.git",
    ref="main",
    commit_sha="1" * 40,
    source_sha256="2" * 64,
)


class Platform:
    """A signing worker's keys and ledger, in the folders in which hosts find them."""

    def __init__(self, root: Path) -> None:
        upgrade(f"sqlite:///{root}/headway.db")
        self.store = Store.open(f"sqlite:///{root}/headway.db")
        self.root = root
        self.key = create_key(root / "keys")
        self.ledger = Ledger.open(self.store, root / "ledger", "ledger.example.test")
        self.count = 0

    def trust(self, publish: bool = True) -> Trust:
        if publish:
            self.ledger.publish(self.root / "ledger")
        return Trust(self.root / "host" / "trust", self.root / "keys", self.root / "ledger")

    def bundle(self, digest: str = DIGEST, key: SigningKey | None = None, logged: bool = True) -> bytes:
        self.count += 1
        about = About(f"build:{self.count}", "build")
        facts = replace(FACTS, digest=digest)
        return attest(statement(facts), key or self.key, ledger=self.ledger.about(about) if logged else None)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    made = Platform(tmp_path)
    yield made
    made.store.close()


def refused(code: str, trust: Trust, bundle: bytes, digest: str = DIGEST, site_id: str = SITE) -> HeadwayError:
    with pytest.raises(HeadwayError) as caught:
        trust.verify(bundle, digest, site_id)
    assert caught.value.code == code
    return caught.value


def test_without_a_key_nothing_is_believed_yet(tmp_path: Path) -> None:
    trust = Trust(tmp_path / "trust", tmp_path / "keys", tmp_path / "ledger")
    assert refused("roll.place_failed", trust, b"{}").retryable


def test_without_a_ledger_nothing_is_believed_yet(platform: Platform) -> None:
    assert refused("roll.place_failed", platform.trust(publish=False), platform.bundle()).retryable


def test_the_first_key_is_pinned_and_a_later_one_is_not_believed(platform: Platform) -> None:
    trust = platform.trust()
    trust.verify(platform.bundle(), DIGEST, SITE)
    for path in (platform.root / "keys").iterdir():
        path.unlink()
    stranger = create_key(platform.root / "keys")
    refused("artifact.signature_invalid", trust, platform.bundle(key=stranger))
    trust.verify(platform.bundle(), DIGEST, SITE)


def test_rollouts_that_come_first_side_by_side_all_believe(platform: Platform) -> None:
    bundle, together = platform.bundle(), threading.Barrier(4)
    platform.trust()
    for number in range(25):
        trust = Trust(platform.root / f"host-{number}", platform.root / "keys", platform.root / "ledger")

        def roll(trust: Trust = trust) -> str:
            together.wait(10)
            return trust.verify(bundle, DIGEST, SITE).digest

        with ThreadPoolExecutor(4) as pool:
            assert [one.result() for one in [pool.submit(roll) for _ in range(4)]] == [DIGEST] * 4


def test_an_older_keyring_does_not_arrive_over_a_newer_one(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    trust, keys = platform.trust(), KeyFolder(platform.root / "keys")
    trust.verify(platform.bundle(), DIGEST, SITE)
    keys.rotate(datetime.now(UTC))
    older = announce(platform, keys)
    keys.revoke("signing", datetime.now(UTC))
    newer = announce(platform, keys)
    judging, go_on = threading.Event(), threading.Event()

    def slowly(raw: bytes, *rest: Any) -> Any:
        if raw == older.encode():
            judging.set()
            go_on.wait(1)
        return open_keyring(raw, *rest)

    monkeypatch.setattr("adapters.hosting.trust.open_keyring", slowly)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(trust.learn, older)
        judging.wait(10)
        second = pool.submit(trust.learn, newer)
        wait((second,), timeout=0.5)
        go_on.set()
        first.result()
        second.result()
    assert "revoked" in refused("artifact.signature_invalid", trust, platform.bundle()).message


def test_a_key_that_is_revoked_after_the_database_was_restored_is_revoked_on_hosts(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust, keys = platform.trust(), KeyFolder(platform.root / "keys")
    trust.learn(announce(platform, keys))
    bundle = platform.bundle()
    platform.store.close()
    shutil.copy(platform.root / "headway.db", platform.root / "backup.db")
    platform.store = Store.open(f"sqlite:///{platform.root}/headway.db")
    platform.ledger = Ledger.open(platform.store, platform.root / "ledger", "ledger.example.test")
    for _ in range(3):
        keys.rotate(datetime.now(UTC))
        trust.learn(announce(platform, keys))
    trust.verify(bundle, DIGEST, SITE)
    platform.store.close()
    for left in platform.root.glob("headway.db*"):
        left.unlink()
    shutil.copy(platform.root / "backup.db", platform.root / "headway.db")
    platform.store = Store.open(f"sqlite:///{platform.root}/headway.db")
    platform.ledger = Ledger.open(platform.store, platform.root / "ledger", "ledger.example.test")
    later = time.time() + 60
    monkeypatch.setattr("activities.ledger.time.time", lambda: later)
    keys.revoke("signing", datetime.now(UTC))
    trust.learn(announce(platform, keys))
    assert "revoked" in refused("artifact.signature_invalid", trust, bundle).message


def test_the_first_ledger_is_pinned_and_another_is_not_believed(platform: Platform, tmp_path: Path) -> None:
    trust = platform.trust()
    trust.verify(platform.bundle(), DIGEST, SITE)
    (tmp_path / "other").mkdir()
    other = Platform(tmp_path / "other")
    other.trust()
    shutil.copy(other.root / "ledger" / ROOT_NAME, platform.root / "ledger")
    assert "another ledger" in refused("artifact.signature_invalid", trust, other.bundle(key=platform.key)).message
    other.store.close()


def test_a_stolen_signing_key_alone_makes_nothing_that_is_believed(platform: Platform, tmp_path: Path) -> None:
    trust = platform.trust()
    assert "no entry" in refused("artifact.signature_invalid", trust, platform.bundle(logged=False)).message
    (tmp_path / "thief").mkdir()
    thief = Platform(tmp_path / "thief")
    refused("artifact.signature_invalid", trust, thief.bundle(key=platform.key))
    thief.store.close()


def announce(platform: Platform, keys: KeyFolder) -> str:
    """The keyring as a host gets it with a rollout, once the signing worker has seen the folder."""
    Recorder(platform.store, MemoryObjects(), platform.ledger, keys, platform.root / "ledger").announce()
    with platform.store.read() as session:
        found = document(session, "keyring")
        assert found is not None
        return found.body.decode()


def test_old_releases_stay_deployable_after_rotation_and_not_after_revocation(platform: Platform) -> None:
    keys, trust = KeyFolder(platform.root / "keys"), platform.trust()
    old = platform.bundle()
    trust.verify(old, DIGEST, SITE)
    first = announce(platform, keys)
    trust.learn(first)
    keys.rotate(utcnow() - timedelta(hours=1))
    fresh = platform.bundle(key=keys.current())
    refused("artifact.signature_invalid", trust, fresh)
    trust.learn(announce(platform, keys))
    trust.verify(fresh, DIGEST, SITE)
    late = platform.bundle(key=platform.key)
    refused("artifact.signature_invalid", trust, late)  # the ledger's time is after the rotation
    keys.revoke(platform.key.hint, utcnow(), reason="stolen")
    third = announce(platform, keys)
    trust.learn(third)
    assert "revoked" in refused("artifact.signature_invalid", trust, old).message
    trust.verify(fresh, DIGEST, SITE)
    trust.learn(first)  # somebody in between plays an older one
    refused("artifact.signature_invalid", trust, old)
    with platform.store.read() as session:
        said = [entry.subject.split(":")[2] for entry in entries(session, 0, 100) if entry.kind == "key"]
    assert said == ["introduced", "retired", "introduced", "revoked"]


def test_retired_keys_count_by_the_ledgers_time(platform: Platform) -> None:
    keys, trust = KeyFolder(platform.root / "keys"), platform.trust()
    trust.learn(announce(platform, keys))
    old = platform.bundle()
    keys.rotate(utcnow())
    trust.learn(announce(platform, keys))
    trust.verify(old, DIGEST, SITE)


def test_work_from_before_a_theft_may_be_kept(platform: Platform) -> None:
    keys, trust = KeyFolder(platform.root / "keys"), platform.trust()
    old = platform.bundle()
    for since, works in ((timedelta(hours=1), True), (timedelta(hours=-1), False)):
        keys.revoke(platform.key.hint, utcnow(), since=utcnow() + since)
        trust.learn(announce(platform, keys))
        if works:
            trust.verify(old, DIGEST, SITE)
        else:
            assert "not older" in refused("artifact.signature_invalid", trust, old).message


def test_a_keyring_that_nobody_vouches_for_is_refused(platform: Platform, tmp_path: Path) -> None:
    trust = platform.trust()
    trust.verify(platform.bundle(), DIGEST, SITE)
    (tmp_path / "thief").mkdir()
    thief = Platform(tmp_path / "thief")
    with pytest.raises(HeadwayError, match="keyring was refused"):
        trust.learn(announce(thief, KeyFolder(thief.root / "keys")))
    thief.store.close()
    refused("artifact.signature_invalid", trust, platform.bundle(key=thief.key))


def test_a_bundle_for_another_site_or_another_artifact_is_refused(platform: Platform) -> None:
    trust = platform.trust()
    refused("artifact.signature_invalid", trust, platform.bundle(), site_id="site_01OTHEROTHEROTHER")
    refused("artifact.signature_invalid", trust, platform.bundle(), digest="0" * 64)
    refused("artifact.signature_invalid", trust, b"")


def test_a_roll_with_real_signatures(platform: Platform) -> None:
    shelf = Shelf()
    host = Host(HostFolders(platform.root / "host"), platform.trust().verify, shelf, Limits(floor=0))
    one, _ = shelf.artifact({"index.html": b"one"})
    two, _ = shelf.artifact({"index.html": b"two"})
    shelf.objects[one.bundle_url] = platform.bundle(one.digest)
    shelf.objects[two.bundle_url] = shelf.objects[one.bundle_url]
    host.place(one, 1, keep_on)
    with pytest.raises(HeadwayError) as caught:
        host.place(two, 3, keep_on)
    assert caught.value.code == "artifact.signature_invalid"
    assert not host.trees.exists(two.digest)


def test_a_host_pins_the_key_that_signing_has_published(tmp_path: Path) -> None:
    """The public half alone, in a folder that both have; a new key leaves the earlier one beside it."""
    shared = tmp_path / "trust"
    shared.mkdir()
    first = create_key(tmp_path / "first")
    publish_key(first, shared)
    publish_key(first, shared)
    assert [path.name for path in shared.iterdir()] == ["signing.pub"]
    assert first.hint in trusted(tmp_path / "pinned", shared)
    second = create_key(tmp_path / "second")
    publish_key(second, shared)
    assert (shared / "signing.pub").read_bytes() == second.pem
    assert {first.hint, second.hint} <= trusted(tmp_path / "later", shared)
    assert not any(b"PRIVATE" in path.read_bytes() for path in shared.iterdir())


def trusted(pinned: Path, shared: Path) -> set[str]:
    """The hints of the keys that a host trusts which joins now."""
    return {key_hint(public) for public in Trust(pinned, shared, shared).keyring().publics}
