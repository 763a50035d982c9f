"""Every way in which a bundle can be wrong, in the order in which `check` looks."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from adapters.ledger.bundles import MEDIA_TYPE
from adapters.ledger.entry import Entry
from adapters.signer.bundle import MAX_BUNDLE, Policy, attest, check
from adapters.signer.keys import Keyring, SigningKey, TrustedKey, create_key, key_hint, load_key
from adapters.signer.statement import BuildFacts, Dependency, public_uri, statement
from headway.errors import HeadwayError

DIGEST = hashlib.sha256(b"manifest").hexdigest()
OTHER = hashlib.sha256(b"another manifest").hexdigest()
SITE = "site_01KVT00000000000000000000A"
FACTS = BuildFacts(
    site_id=SITE,
    env_id="env_01KVT00000000000000000000A",
    build_id="build_01KVT0000000000000000000A",
    digest=DIGEST,
    repository="https://user:hunter2@git.example.test/shop.git?token=hunter2",
    ref="main",
    commit_sha="1" * 40,
    source_sha256="2" * 64,
    plan={"profile": "static", "command": "npm ci && npm run build", "timeout": 900},
    parameters={"clean": False},
    started_at=datetime(2026, 6, 24, 14, 31, 18, 500_000, tzinfo=UTC),
    dependencies=(Dependency("pkg:npm/reveal.js@5.2.1", {"sha256": "3" * 64}),),
)
POLICY = Policy(site_id=SITE)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return create_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return create_key(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def good(key: SigningKey) -> bytes:
    return attest(statement(FACTS), key)


def refused(bundle: bytes, key: SigningKey, why: str, *, digest: str = DIGEST, policy: Policy = POLICY) -> HeadwayError:
    with pytest.raises(HeadwayError) as caught:
        check(bundle, digest, Keyring.of(key), policy)
    assert caught.value.code == "artifact.signature_invalid"
    assert why in caught.value.message
    return caught.value


def changed(bundle: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(bundle)
    change(document)
    return json.dumps(document).encode()


def resigned(key: SigningKey, change: Callable[[dict[str, Any]], object]) -> bytes:
    """A statement that was changed before the rightful key signed it."""
    document = json.loads(statement(FACTS))
    change(document)
    return attest(json.dumps(document).encode(), key)


def test_a_good_bundle_is_believed(good: bytes, key: SigningKey) -> None:
    verified = check(good, DIGEST, Keyring.of(key), POLICY)
    assert verified.key_hint == key.hint
    assert verified.build_id == FACTS.build_id
    assert verified.statement["predicate"]["buildDefinition"]["internalParameters"]["plan"] == FACTS.plan


def test_the_bundle_has_the_shape_that_cosign_takes(good: bytes, key: SigningKey) -> None:
    document = json.loads(good)
    assert document["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert document["verificationMaterial"] == {"publicKey": {"hint": key.hint}, "tlogEntries": []}
    assert document["dsseEnvelope"]["payloadType"] == "application/vnd.in-toto+json"
    assert [set(one) for one in document["dsseEnvelope"]["signatures"]] == [{"sig"}]


def test_a_bundle_without_the_empty_entry_list_is_the_same_bundle(good: bytes, key: SigningKey) -> None:
    cosigns = changed(good, lambda d: d["verificationMaterial"].pop("tlogEntries"))
    assert check(cosigns, DIGEST, Keyring.of(key), POLICY).digest == DIGEST


def test_equal_facts_give_equal_statements_without_credentials() -> None:
    assert statement(FACTS) == statement(replace(FACTS, plan=dict(sorted(FACTS.plan.items()))))
    assert b"hunter2" not in statement(FACTS)
    said = json.loads(statement(FACTS))["predicate"]
    assert said["buildDefinition"]["externalParameters"]["source"] == {
        "uri": "https://git.example.test/shop.git",
        "ref": "main",
    }
    assert said["runDetails"]["metadata"] == {"invocationId": FACTS.build_id, "startedOn": "2026-06-24T14:31:18Z"}
    assert said["buildDefinition"]["resolvedDependencies"][0]["digest"] == {"gitCommit": "1" * 40}


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("ssh://git@host.test:22/a.git", "ssh://host.test:22/a.git"),
        ("hosted:site_1", "hosted:site_1"),
        ("file:///srv/a.git", "file:///srv/a.git"),
        ("https://a%40b:c%2F@host.test/x#frag", "https://host.test/x"),
    ],
)
def test_public_uri(address: str, public: str) -> None:
    assert public_uri(address) == public


def test_a_plan_without_a_canonical_form_is_not_signed() -> None:
    with pytest.raises(HeadwayError) as caught:
        statement(replace(FACTS, plan={"timeout": 2**60}))
    assert caught.value.code == "sign.failed"


# the bundle, in the order of the checks


def test_missing(key: SigningKey) -> None:
    refused(b"", key, "missing")


def test_oversized(good: bytes, key: SigningKey) -> None:
    refused(good + b" " * MAX_BUNDLE, key, "larger")


@pytest.mark.parametrize(
    "raw", [b"{", b"\xff\xfe", b"nonsense", b'{"mediaType": NaN}', b"[" * 200_000, b"[]", b"null", b'"x"', b"1e999"]
)
def test_malformed_json(raw: bytes, key: SigningKey) -> None:
    refused(raw, key, "JSON")


@pytest.mark.parametrize("member", ["mediaType", "hint", "sig", "payload"])
def test_a_member_twice(good: bytes, key: SigningKey, member: str) -> None:
    text = good.decode()
    at = text.index(f'"{member}"')
    refused((text[:at] + f'"{member}":"evil",' + text[at:]).encode(), key, "twice")


@pytest.mark.parametrize(
    "media_type",
    [
        None,
        7,
        "application/vnd.dev.sigstore.bundle+json;version=0.1",
        "application/vnd.dev.sigstore.bundle+json;version=0.3",
        MEDIA_TYPE + " ",
    ],
)
def test_wrong_media_type(good: bytes, key: SigningKey, media_type: object) -> None:
    refused(changed(good, lambda d: d.update(mediaType=media_type)), key, "media type")


@pytest.mark.parametrize("name", ["certificate", "x509CertificateChain"])
def test_certificate_material(good: bytes, key: SigningKey, name: str) -> None:
    refused(changed(good, lambda d: d["verificationMaterial"].update({name: {"rawBytes": "AAAA"}})), key, "certificate")


def test_a_time_that_nobody_checks(good: bytes, key: SigningKey) -> None:
    stamped = {"rfc3161Timestamps": [{"signedTimestamp": "AAAA"}]}
    refused(changed(good, lambda d: d["verificationMaterial"].update(timestampVerificationData=stamped)), key, "time")


@pytest.mark.parametrize("public_key", [None, {}, {"hint": ""}, {"hint": 1}, "x"])
def test_no_public_key(good: bytes, key: SigningKey, public_key: object) -> None:
    refused(changed(good, lambda d: d["verificationMaterial"].update(publicKey=public_key)), key, "no public key")


def test_no_verification_material(good: bytes, key: SigningKey) -> None:
    refused(changed(good, lambda d: d.pop("verificationMaterial")), key, "material")


def test_a_message_signature_instead_of_an_envelope(good: bytes, key: SigningKey) -> None:
    def change(document: dict[str, Any]) -> None:
        document["messageSignature"] = {"signature": document.pop("dsseEnvelope")["signatures"][0]["sig"]}

    refused(changed(good, change), key, "DSSE")


def test_a_message_signature_beside_the_envelope(good: bytes, key: SigningKey) -> None:
    refused(changed(good, lambda d: d.update(messageSignature={"signature": "AAAA"})), key, "well-formed")


def test_wrong_payload_type(good: bytes, key: SigningKey) -> None:
    refused(changed(good, lambda d: d["dsseEnvelope"].update(payloadType="text/plain")), key, "in-toto")


def test_two_signatures(good: bytes, key: SigningKey) -> None:
    refused(
        changed(good, lambda d: d["dsseEnvelope"].update(signatures=d["dsseEnvelope"]["signatures"] * 2)), key, "one"
    )


def test_no_signature(good: bytes, key: SigningKey) -> None:
    refused(changed(good, lambda d: d["dsseEnvelope"].update(signatures=[])), key, "one signature")


def test_a_key_id(good: bytes, key: SigningKey) -> None:
    refused(changed(good, lambda d: d["dsseEnvelope"]["signatures"][0].update(keyid="")), key, "key id")


@pytest.mark.parametrize("sig", ["", "****", "AAA", "AA AA", 7, None, "AAF="])
def test_signature_that_is_not_base64(good: bytes, key: SigningKey, sig: object) -> None:
    refused(changed(good, lambda d: d["dsseEnvelope"]["signatures"][0].update(sig=sig)), key, "base64")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(extra=1),
        lambda d: d["dsseEnvelope"].update(extra=1),
        lambda d: d["verificationMaterial"].update(timestampVerificationData=[]),
        lambda d: d["verificationMaterial"].update(tlogEntries=None),
        lambda d: d["verificationMaterial"].update(tlogEntries=[{"logIndex": "0"}]),
        lambda d: d.update(dsse_envelope=d["dsseEnvelope"]),
        lambda d: d.update(media_type=MEDIA_TYPE),
        lambda d: d["verificationMaterial"].update(certificate_=None),
    ],
)
def test_members_that_do_not_belong(good: bytes, key: SigningKey, change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(HeadwayError) as caught:
        check(changed(good, change), DIGEST, Keyring.of(key), POLICY)
    assert caught.value.code == "artifact.signature_invalid"


def test_unknown_hint(good: bytes, key: SigningKey) -> None:
    refused(changed(good, lambda d: d["verificationMaterial"]["publicKey"].update(hint="bogus")), key, "not trusted")


def test_another_key(key: SigningKey, stranger: SigningKey) -> None:
    refused(attest(statement(FACTS), stranger), key, "not trusted")


def test_another_key_under_a_trusted_hint(key: SigningKey, stranger: SigningKey) -> None:
    forged = changed(
        attest(statement(FACTS), stranger), lambda d: d["verificationMaterial"]["publicKey"].update(hint=key.hint)
    )
    refused(forged, key, "does not fit")


def test_an_empty_ring_believes_nothing(good: bytes) -> None:
    with pytest.raises(HeadwayError, match="not trusted"):
        check(good, DIGEST, Keyring(), POLICY)


def test_revoked_key(good: bytes, key: SigningKey) -> None:
    with pytest.raises(HeadwayError, match="revoked"):
        check(good, DIGEST, Keyring([TrustedKey(key.public, revoked=True)]), POLICY)


EARLY = "not valid yet: that begins at 2026-06-24T01:00:00.00:00, and this was signed at 2026-06-24T00:00:00.* clock"


@pytest.mark.parametrize(("bounds", "why"), [((1, None), EARLY), ((None, -1), "no longer valid")])
def test_key_outside_its_time(good: bytes, key: SigningKey, bounds: tuple[int | None, int | None], why: str) -> None:
    now = datetime(2026, 6, 24, tzinfo=UTC)
    before, after = (None if hours is None else now + timedelta(hours=hours) for hours in bounds)
    with pytest.raises(HeadwayError, match=why):
        check(good, DIGEST, Keyring([TrustedKey(key.public, before, after)]), POLICY, now=now)


def test_flipped_byte_in_the_payload(good: bytes, key: SigningKey) -> None:
    def flip(document: dict[str, Any]) -> None:
        payload = bytearray(base64.b64decode(document["dsseEnvelope"]["payload"]))
        payload[len(payload) // 2] ^= 1
        document["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()

    refused(changed(good, flip), key, "does not fit")


@pytest.mark.parametrize("at", [0, 8, -1])
def test_flipped_byte_in_the_signature(good: bytes, key: SigningKey, at: int) -> None:
    def flip(document: dict[str, Any]) -> None:
        signature = bytearray(base64.b64decode(document["dsseEnvelope"]["signatures"][0]["sig"]))
        signature[at] ^= 1
        document["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signature).decode()

    refused(changed(good, flip), key, "does not fit")


def test_an_unsigned_payload_is_never_parsed(good: bytes, key: SigningKey) -> None:
    payload = base64.b64encode(b"[" * 100_000).decode()
    refused(changed(good, lambda d: d["dsseEnvelope"].update(payload=payload)), key, "does not fit")


# the statement


@pytest.mark.parametrize("payload", [b"[]", b"\xff", b"{", b'{"_type":1,"_type":1}'])
def test_signed_nonsense(key: SigningKey, payload: bytes) -> None:
    refused(attest(payload, key), key, "statement")


def test_wrong_statement_type(key: SigningKey) -> None:
    refused(resigned(key, lambda d: d.update(_type="https://in-toto.io/Statement/v0.1")), key, "Statement v1")


def test_wrong_predicate_type(key: SigningKey) -> None:
    refused(resigned(key, lambda d: d.update(predicateType="https://slsa.dev/provenance/v0.2")), key, "SLSA")


def test_swapped_bundle_of_another_artifact(key: SigningKey) -> None:
    swapped = attest(statement(replace(FACTS, digest=OTHER)), key)
    assert check(swapped, OTHER, Keyring.of(key), POLICY).digest == OTHER
    refused(swapped, key, "another artifact")


@pytest.mark.parametrize(
    "subject",
    [
        None,
        [],
        [None],
        [{"digest": None}],
        [{"digest": {"sha512": DIGEST}}],
        [{"digest": {"sha256": DIGEST}}, {"digest": {"sha256": OTHER}}],
    ],
)
def test_unclear_subject(key: SigningKey, subject: object) -> None:
    refused(resigned(key, lambda d: d.update(subject=subject)), key, "another artifact")


def test_another_builder(key: SigningKey) -> None:
    refused(attest(statement(replace(FACTS, builder_id="https://evil.test/")), key), key, "builder")


@pytest.mark.parametrize("predicate", [None, [], {"runDetails": {"builder": {"id": ["x"]}}}])
def test_no_builder(key: SigningKey, predicate: object) -> None:
    refused(resigned(key, lambda d: d.update(predicate=predicate)), key, "builder")


def test_another_kind_of_build(key: SigningKey) -> None:
    refused(attest(statement(replace(FACTS, build_type="urn:other")), key), key, "kind of build")


def test_another_site(good: bytes, key: SigningKey) -> None:
    refused(good, key, "another site", policy=Policy(site_id="site_01KVT00000000000000000000B"))


def test_messages_repeat_nothing_hostile(good: bytes, key: SigningKey) -> None:
    poison = "\x1b[2J<script>"
    for change in (
        lambda d: d.update(mediaType=poison),
        lambda d: d["verificationMaterial"]["publicKey"].update(hint=poison),
        lambda d: d["dsseEnvelope"].update(payloadType=poison),
        lambda d: d.update({poison: 1}),
    ):
        with pytest.raises(HeadwayError) as caught:
            check(changed(good, change), DIGEST, Keyring.of(key), POLICY)
        assert "script" not in caught.value.message


# the seam for a ledger


class OneEntry:
    def __init__(self, at: datetime) -> None:
        self.at = at
        self.seen: list[Entry] = []

    def append(self, entry: Entry) -> tuple[Entry, dict[str, Any]]:
        self.seen.append(entry)
        return entry, {
            "logIndex": "0",
            "logId": {"keyId": "AAAA"},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": "1782311478",
            "inclusionPromise": {"signedEntryTimestamp": "AAAA"},
            "inclusionProof": {
                "logIndex": "0",
                "treeSize": "1",
                "rootHash": "AAAA",
                "hashes": [],
                "checkpoint": {"envelope": "x"},
            },
            "canonicalizedBody": "AAAA",
        }

    def check(self, items: Any, entry: Entry) -> datetime:
        if not items:
            raise HeadwayError("artifact.signature_invalid", "no ledger entry")
        assert entry == self.seen[0]
        return self.at


def test_the_ledgers_time_decides_a_keys_validity(key: SigningKey) -> None:
    ended = datetime(2026, 1, 1, tzinfo=UTC)
    ring = Keyring([TrustedKey(key.public, not_after=ended)])
    ledger = OneEntry(ended - timedelta(days=1))
    entered = attest(statement(FACTS), key, ledger=ledger)
    assert check(entered, DIGEST, ring, POLICY, ledger=ledger).at == ledger.at
    with pytest.raises(HeadwayError, match="no ledger"):
        check(entered, DIGEST, ring, POLICY)
    ledger.at = ended + timedelta(days=1)
    with pytest.raises(HeadwayError, match="no longer valid"):
        check(entered, DIGEST, ring, POLICY, ledger=ledger)


def test_an_entry_is_demanded_where_a_ledger_is_trusted(good: bytes, key: SigningKey) -> None:
    with pytest.raises(HeadwayError, match="no ledger entry"):
        check(good, DIGEST, Keyring.of(key), POLICY, ledger=OneEntry(datetime.now(UTC)))


# key files


def test_key_files(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    made = create_key(folder)
    assert stat.S_IMODE((folder / "signing.pem").stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["signing.pem", "signing.pub"]
    again = create_key(folder)
    assert again.hint == made.hint == load_key(folder / "signing.pem").hint
    assert Keyring.from_folder(folder).get(made.hint) is not None
    expected = base64.b64encode(
        hashlib.sha256(
            made.public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        ).digest()
    )
    assert made.hint == expected.decode()


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    create_key(tmp_path)
    (tmp_path / "signing.pem").chmod(0o644)
    with pytest.raises(HeadwayError, match="chmod 600"):
        load_key(tmp_path / "signing.pem")


def test_a_missing_or_foreign_key_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(HeadwayError, match="cannot be read"):
        load_key(tmp_path / "signing.pem")
    other = ec.generate_private_key(ec.SECP384R1())
    (tmp_path / "other.pub").write_bytes(
        other.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(HeadwayError, match=r"other\.pub is not a P-256"):
        Keyring.from_folder(tmp_path)
    assert key_hint(other.public_key())
