"""A host believes the keys that it pinned, for the site that it was asked for, and nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from adapters.hosting.host import Host, Limits
from adapters.hosting.layout import HostFolders
from adapters.hosting.trust import Trust
from adapters.signer.bundle import attest
from adapters.signer.keys import SigningKey, create_key, publish_key
from adapters.signer.statement import BuildFacts, statement
from headway.errors import HeadwayError
from tests.adapters.sites import ENV, SITE, Shelf, keep_on

DIGEST = hashlib.sha256(b"manifest").hexdigest()


def bundle_of(key: SigningKey, digest: str = DIGEST, site_id: str = SITE) -> bytes:
    facts = BuildFacts(
        site_id=site_id,
        env_id=ENV,
        build_id="build_01KVT0000000000000000000A",
        digest=digest,
        repository="https://git.example.test/shop.git",
        ref="main",
        commit_sha="1" * 40,
        source_sha256="2" * 64,
    )
    return attest(statement(facts), key)


def refused(code: str, trust: Trust, bundle: bytes, digest: str = DIGEST, site_id: str = SITE) -> HeadwayError:
    with pytest.raises(HeadwayError) as caught:
        trust.verify(bundle, digest, site_id)
    assert caught.value.code == code
    return caught.value


def test_without_a_key_nothing_is_believed_yet(tmp_path: Path) -> None:
    trust = Trust(tmp_path / "trust", tmp_path / "keys")
    assert refused("roll.place_failed", trust, b"{}").retryable


def test_the_first_key_is_pinned_and_a_later_one_is_not_believed(tmp_path: Path) -> None:
    key = create_key(tmp_path / "keys")
    trust = Trust(tmp_path / "trust", tmp_path / "keys")
    trust.verify(bundle_of(key), DIGEST, SITE)
    for path in (tmp_path / "keys").iterdir():
        path.unlink()
    stranger = create_key(tmp_path / "keys")
    refused("artifact.signature_invalid", trust, bundle_of(stranger))
    trust.verify(bundle_of(key), DIGEST, SITE)


def test_a_bundle_for_another_site_or_another_artifact_is_refused(tmp_path: Path) -> None:
    key = create_key(tmp_path / "keys")
    trust = Trust(tmp_path / "trust", tmp_path / "keys")
    refused("artifact.signature_invalid", trust, bundle_of(key), site_id="site_01OTHEROTHEROTHER")
    refused("artifact.signature_invalid", trust, bundle_of(key), digest="0" * 64)
    refused("artifact.signature_invalid", trust, b"")


def test_a_roll_with_real_signatures(tmp_path: Path) -> None:
    key = create_key(tmp_path / "keys")
    shelf = Shelf()
    trust = Trust(tmp_path / "host" / "trust", tmp_path / "keys")
    host = Host(HostFolders(tmp_path / "host"), trust.verify, shelf, Limits(floor=0))
    one, _ = shelf.artifact({"index.html": b"one"})
    two, _ = shelf.artifact({"index.html": b"two"})
    shelf.objects[one.bundle_url] = bundle_of(key, one.digest)
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
    Trust(tmp_path / "pinned", shared).verify(bundle_of(first), DIGEST, SITE)
    second = create_key(tmp_path / "second")
    publish_key(second, shared)
    assert (shared / "signing.pub").read_bytes() == second.pem
    joined = Trust(tmp_path / "later", shared)
    for key in (first, second):
        joined.verify(bundle_of(key), DIGEST, SITE)
    assert not any(b"PRIVATE" in path.read_bytes() for path in shared.iterdir())
