"""Keyless signing against a private Sigstore on loopback; and that no mode falls back to the other."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import SQLModel, select

from activities.ledger import About, Ledger
from activities.sign import Signer
from adapters.artifact.manifest import File, make_manifest
from adapters.hosting.trust import Trust
from adapters.ledger.root import ROOT_NAME
from adapters.signer.bundle import Policy, attest, check
from adapters.signer.keyless import SIGSTORE_NAME, Keyless, Trusted, is_keyless, open_keyless, open_trusted
from adapters.signer.keys import Keyring, create_key
from adapters.signer.statement import BuildFacts, statement
from headway.cli.fetching import verify_folder
from headway.errors import HeadwayError
from store.migrations import upgrade
from store.models import Artifact, Build
from store.session import Store
from temporal.messages import BuildOrder
from tests.adapters.cosign import SUITES, cosign_of
from tests.adapters.sigstore_instance import IDENTITY, Instance, running_instance
from tests.api.doubles import MemoryObjects
from tests.workflows.rows import World

SITE = "site_01KVT00000000000000000000A"
MANIFEST = b'{"files":[],"version":1}'
DIGEST = hashlib.sha256(MANIFEST).hexdigest()
FACTS = BuildFacts(
    site_id=SITE,
    env_id="env_01KVT00000000000000000000A",
    build_id="build_01KVT0000000000000000000A",
    digest=DIGEST,
    repository="https://git.example.test/shop.git",
    ref="main",
    commit_sha="1" * 40,
    source_sha256="2" * 64,
)
Json = dict[str, Any]


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with running_instance() as made:
        yield made


@pytest.fixture(scope="module")
def keyless(instance: Instance, tmp_path_factory: pytest.TempPathFactory) -> Keyless:
    return opened(instance, tmp_path_factory.mktemp("keyless"))


def opened(instance: Instance, folder: Path, identity: str = IDENTITY, issuer: str = "") -> Keyless:
    """As the signing worker: a configuration in a file, a token in a file."""
    (folder / "trust.json").write_text(json.dumps(instance.trust_config()))
    (folder / "token").write_text(instance.token())
    return open_keyless(str(folder / "trust.json"), identity, issuer or instance.url, folder / "token")


@pytest.fixture(scope="module")
def bundle(keyless: Keyless) -> bytes:
    return keyless.attest(statement(FACTS))


def refused(work: Callable[[], object], why: str, code: str = "artifact.signature_invalid") -> None:
    with pytest.raises(HeadwayError) as caught:
        work()
    assert caught.value.code == code, caught.value.message
    assert why in caught.value.message, caught.value.message


def changed(bundle: bytes, change: Callable[[Json], object]) -> bytes:
    document = json.loads(bundle)
    change(document)
    return json.dumps(document).encode()


def test_a_certificate_in_place_of_a_key(keyless: Keyless, bundle: bytes, instance: Instance) -> None:
    verified = keyless.trusted.check(bundle, DIGEST, Policy(SITE))
    assert (verified.digest, verified.build_id, verified.key_hint) == (DIGEST, FACTS.build_id, f"keyless:{IDENTITY}")
    assert verified.statement == json.loads(statement(FACTS))
    assert is_keyless(bundle)
    assert instance.asked[:2] == ["/api/v2/signingCert", "/api/v1/log/entries"]
    # What hosts pin is enough, offline.
    assert open_trusted(keyless.trusted.raw) == keyless.trusted
    assert open_trusted(keyless.trusted.raw).check(bundle, DIGEST, Policy(SITE)).log_index == verified.log_index


def flip(document: Json, *path: Any) -> None:
    inner: Any = document
    for name in path[:-1]:
        inner = inner[name]
    raw = bytearray(base64.b64decode(inner[path[-1]]))
    raw[len(raw) // 2] ^= 1
    inner[path[-1]] = base64.b64encode(raw).decode()


TLOG = ("verificationMaterial", "tlogEntries", 0)
TAMPERINGS: dict[str, tuple[Callable[[Json], object], str]] = {
    "media type": (lambda d: d.update(mediaType="application/json"), "media type"),
    "no material": (lambda d: d.pop("verificationMaterial"), "no verification material"),
    "no envelope": (lambda d: d.pop("dsseEnvelope"), "no DSSE envelope"),
    "payload": (lambda d: flip(d, "dsseEnvelope", "payload"), ""),
    "signature": (lambda d: flip(d, "dsseEnvelope", "signatures", 0, "sig"), ""),
    "certificate": (lambda d: flip(d, "verificationMaterial", "certificate", "rawBytes"), ""),
    "no entry": (lambda d: d["verificationMaterial"].update(tlogEntries=[]), ""),
    "entry's body": (lambda d: flip(d, *TLOG, "canonicalizedBody"), ""),
    "promise": (lambda d: flip(d, *TLOG, "inclusionPromise", "signedEntryTimestamp"), ""),
    "back-dated": (lambda d: d["verificationMaterial"]["tlogEntries"][0].update(integratedTime="1700000000"), ""),
    "root": (lambda d: flip(d, *TLOG, "inclusionProof", "rootHash"), ""),
    "a key beside it": (lambda d: d["verificationMaterial"].update(publicKey={"hint": "x"}), "signed with a key"),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_what_was_changed_is_refused(keyless: Keyless, bundle: bytes, name: str) -> None:
    change, why = TAMPERINGS[name]
    refused(lambda: keyless.trusted.check(changed(bundle, change), DIGEST, Policy(SITE)), why)


def test_identity_and_issuer_are_the_policy(keyless: Keyless, bundle: bytes, instance: Instance) -> None:
    for who in (
        replace(keyless.trusted, identity="https://git.example.test/platform/.deploy/evil"),
        replace(keyless.trusted, issuer="https://accounts.example.test"),
    ):
        refused(lambda who=who: who.check(bundle, DIGEST, Policy(SITE)), "Sigstore: ")
    refused(lambda: keyless.trusted.check(bundle, "0" * 64, Policy(SITE)), "another artifact")
    refused(lambda: keyless.trusted.check(bundle, DIGEST, Policy("site_other")), "another site")


def test_another_instance_is_nobody(keyless: Keyless, bundle: bytes) -> None:
    """Same names, other keys: authority, CT log and transparency log are each held to the pinned root."""
    other = Instance()
    other.url = "http://127.0.0.1:9"
    stranger = other.trust_config()["trustedRoot"]
    own = keyless.trusted.root
    for part in ("tlogs", "certificateAuthorities", "ctlogs"):
        mixed = Trusted({**own, part: stranger[part]}, keyless.trusted.identity, keyless.trusted.issuer)
        refused(lambda mixed=mixed: mixed.check(bundle, DIGEST, Policy(SITE)), "Sigstore: ")


def test_no_mode_falls_back_to_the_other(keyless: Keyless, bundle: bytes, tmp_path: Path) -> None:
    """A host of either mode has all that both need, and yet takes its own alone."""
    upgrade(f"sqlite:///{tmp_path}/headway.db")
    store = Store.open(f"sqlite:///{tmp_path}/headway.db")
    ledger, key = Ledger.open(store, tmp_path / "ledger", "ledger.test"), create_key(tmp_path / "keys")
    by_key = attest(statement(FACTS), key, ledger=ledger.about(About("build:1", "build")))
    ledger.publish(tmp_path / "ledger")
    store.close()
    (tmp_path / "ledger" / SIGSTORE_NAME).write_bytes(keyless.trusted.raw)
    hosts = {
        mode: Trust(tmp_path / f"host-{mode}", tmp_path / "keys", tmp_path / "ledger", mode)  # type: ignore[arg-type]
        for mode in ("key", "keyless")
    }
    assert hosts["key"].verify(by_key, DIGEST, SITE).digest == DIGEST
    assert hosts["keyless"].verify(bundle, DIGEST, SITE).digest == DIGEST
    refused(lambda: hosts["key"].verify(bundle, DIGEST, SITE), "carries a certificate where a public key is expected")
    refused(lambda: hosts["keyless"].verify(by_key, DIGEST, SITE), "signed with a key")
    # It is pinned: what comes later is not asked.
    (tmp_path / "ledger" / SIGSTORE_NAME).write_bytes(replace(keyless.trusted, identity="https://evil.test").raw)
    assert hosts["keyless"].verify(bundle, DIGEST, SITE).digest == DIGEST
    refused(lambda: check(bundle, DIGEST, Keyring.of(key), Policy(SITE)), "carries a certificate")
    # An outsider's folder, the same.
    folder = tmp_path / "got"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(MANIFEST)
    (folder / "key.pub").write_bytes(key.pem)
    (folder / ROOT_NAME).write_bytes((tmp_path / "ledger" / ROOT_NAME).read_bytes())
    (tmp_path / "pinned.json").write_bytes(keyless.trusted.raw)
    (folder / "bundle.json").write_bytes(by_key)
    refused(lambda: verify_folder(folder, sigstore=tmp_path / "pinned.json"), "signed with a key")
    (folder / "bundle.json").write_bytes(bundle)
    refused(lambda: verify_folder(folder), "carries a certificate")


def test_a_host_without_a_pinned_root_waits(tmp_path: Path) -> None:
    with pytest.raises(HeadwayError) as caught:
        Trust(tmp_path / "host", tmp_path, tmp_path, "keyless").verify(b"", DIGEST, SITE)
    assert (caught.value.code, caught.value.retryable) == ("roll.place_failed", True)


def test_what_cannot_be_signed_is_not_signed_otherwise(instance: Instance, tmp_path: Path) -> None:
    made = opened(instance, tmp_path)
    token = tmp_path / "token"
    for spoilt in ("", "not a token", instance.token(seconds=-30), instance.token(audience="somebody")):
        token.write_text(spoilt)
        refused(lambda: made.attest(statement(FACTS)), "", "sign.failed")
    token.unlink()
    refused(lambda: made.attest(statement(FACTS)), "cannot be had: FileNotFoundError", "sign.failed")
    # Somebody else's token is signed for by the instance, and not taken here.
    token.write_text(instance.token("https://git.example.test/somebody/else"))
    refused(lambda: made.attest(statement(FACTS)), "as somebody else", "sign.failed")
    # An instance that is away, or lies.
    token.write_text(instance.token())
    instance.twist = lambda entry: {**entry, "integratedTime": entry["integratedTime"] - 86_400}
    refused(lambda: made.attest(statement(FACTS)), "", "sign.failed")
    instance.twist = lambda entry: entry
    assert made.attest(statement(FACTS))


def test_the_token_is_told_to_nobody(
    instance: Instance, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    made = opened(instance, tmp_path)
    token = (tmp_path / "token").read_text()
    caplog.set_level(logging.DEBUG)
    instance.refuse = {"message": f"I do not like {token}"}
    try:
        with pytest.raises(HeadwayError) as caught:
            made.attest(statement(FACTS))
    finally:
        instance.refuse = None
    bundle = made.attest(statement(FACTS))
    assert token not in caught.value.message
    assert caught.value.__cause__ is None
    out, err = capfd.readouterr()
    for seen in (caplog.text, out, err, bundle.decode(), repr(made), made.trusted.raw.decode()):
        assert token.split(".")[2] not in seen


@pytest.mark.parametrize(("identity", "issuer"), [("", "x"), ("x", "")])
def test_half_a_policy_is_none(instance: Instance, tmp_path: Path, identity: str, issuer: str) -> None:
    (tmp_path / "trust.json").write_text(json.dumps(instance.trust_config()))
    refused(
        lambda: open_keyless(str(tmp_path / "trust.json"), identity, issuer, None),
        "HEADWAY_SIGSTORE_IDENTITY",
        "stack.setting_invalid",
    )


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"mode":"keyless"}', b'{"mode":"key","identity":"a","issuer":"b"}'])
def test_a_damaged_pin_trusts_nobody(raw: bytes) -> None:
    refused(lambda: open_trusted(raw), "does not say whom to trust", "internal.error")


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_stock_cosign_takes_it_and_no_other_identity(
    suite: str, keyless: Keyless, bundle: bytes, tmp_path: Path
) -> None:
    """As docs/verify.md says it, with the trusted root that sigstore.json has."""
    cosign = cosign_of(suite, tmp_path)
    # Version 2.5 takes the index 0 for none: not the first entry of a log.
    bundle = keyless.attest(statement(FACTS))
    (tmp_path / "manifest.json").write_bytes(MANIFEST)
    (tmp_path / "root.json").write_text(json.dumps(keyless.trusted.root))
    home = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HTTPS_PROXY": "http://127.0.0.1:9", "no_proxy": ""}

    def verified(body: bytes, identity: str, issuer: str) -> bool:
        (tmp_path / "bundle.json").write_bytes(body)
        argv = [cosign, "verify-blob-attestation", "--new-bundle-format", "--type", "slsaprovenance1"]
        argv += ["--certificate-identity", identity, "--certificate-oidc-issuer", issuer]
        argv += ["--trusted-root", tmp_path / "root.json", "--bundle", tmp_path / "bundle.json"]
        done = subprocess.run(
            [*map(str, argv), str(tmp_path / "manifest.json")],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=home,
        )
        return done.returncode == 0

    issuer = keyless.trusted.issuer
    assert verified(bundle, IDENTITY, issuer)
    assert not verified(bundle, f"{IDENTITY}x", issuer)
    assert not verified(bundle, IDENTITY, "https://accounts.example.test")
    broken = changed(bundle, lambda d: flip(d, *TLOG, "canonicalizedBody"))
    assert not verified(broken, IDENTITY, issuer)


def test_the_signing_worker_keeps_one_bundle_of_its_own_mode(keyless: Keyless, tmp_path: Path) -> None:
    """Content that was signed with a key is signed anew without one, and the other way round; ours takes both in."""
    store = Store.open(f"sqlite:///{tmp_path}/headway.db")
    SQLModel.metadata.create_all(store.engine)
    world, objects, keys = World.make(store), MemoryObjects(), create_key(tmp_path / "keys")
    ledger = Ledger.open(store, tmp_path / "ledger", "ledger.test")
    manifest = make_manifest([File("index.html", "644", 2, hashlib.sha256(b"hi").hexdigest())])
    base = f"sites/{world.site_id}/artifacts/{manifest.digest}"
    objects.put_new(f"{base}/manifest.json", manifest.raw, manifest.digest)
    seen = []
    for way in (None, keyless, keyless, None):
        job = world.accept_build()
        with store.write() as session:
            build = session.get_one(Build, job.resource_id)
            build.status, build.attempt, build.commit_sha, build.source_sha256 = "running", 1, "1" * 40, "2" * 64
            build.manifest_sha256 = manifest.digest
        signer = Signer(store, objects, keys, ledger=ledger, keyless=way)
        signer.sign(BuildOrder(job.id, job.resource_id, world.site_id, world.env_id, "main"))
        with store.read() as session:
            [artifact] = session.exec(select(Artifact)).all()
        seen.append((is_keyless(objects.held[f"{base}/bundle.json"]), artifact.key_hint, artifact.log_index))
    store.close()
    assert [one[0] for one in seen] == [False, True, True, False]
    assert [one[1] for one in seen] == [keys.hint, f"keyless:{IDENTITY}", f"keyless:{IDENTITY}", keys.hint]
    assert [one[2] for one in seen] == [0, 1, 1, 2], "once for each bundle"
