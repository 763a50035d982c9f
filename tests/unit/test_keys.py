"""The folder of signing keys, what its keyring lets through, and who may change it."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from adapters.ledger.keyring import EVER, KeyRecord, KeyringDocument, open_keyring, sign_keyring
from adapters.ledger.note import Log
from adapters.ledger.proofs import ProofError
from adapters.signer.folder import OVERLAP, KeyFolder
from adapters.signer.keys import SigningKey, create_key, load_key
from headway.errors import HeadwayError

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
# Made by cosign 2.5 with the password "testpw".
COSIGN_KEY = Path(__file__).with_name("cosign.key")
COSIGN_HINT = Path(__file__).with_name("cosign.hint")


def states(folder: KeyFolder) -> list[tuple[str, str]]:
    return [(one.name, one.record.state) for one in folder.kept()]


def test_the_first_key_is_made_on_first_use(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path / "keys")
    assert states(folder) == [("signing", "current")]
    assert folder.current().hint == load_key(tmp_path / "keys" / "signing.pem").hint
    assert not (tmp_path / "keys" / "keyring.json").exists()


def test_rotation_retires_and_a_worker_that_runs_sees_it(tmp_path: Path) -> None:
    worker, operator = KeyFolder(tmp_path), KeyFolder(tmp_path)
    first = worker.current()
    made = operator.rotate(NOW)
    assert states(worker) == [("signing", "retired"), ("signing-2", "current")]
    assert worker.current().hint == made.record.hint != first.hint
    old, new = worker.ring().get(first.hint), worker.ring().get(made.record.hint)
    assert old is not None
    assert new is not None
    assert (old.not_after, new.not_before, old.revoked) == (NOW + OVERLAP, NOW, False)


def test_revocation_ends_a_key_and_begins_another_if_it_was_the_last(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    first = folder.current()
    folder.revoke(first.hint, NOW, reason="stolen")
    assert states(folder) == [("signing", "revoked"), ("signing-2", "current")]
    ended = folder.ring().get(first.hint)
    assert ended is not None
    assert (ended.revoked, ended.revoked_from) == (True, EVER)
    folder.revoke("signing-2", NOW, since=NOW - timedelta(days=1))
    partly = folder.ring().get(folder.kept()[1].record.hint)
    assert partly is not None
    assert (partly.revoked, partly.revoked_from) == (False, NOW - timedelta(days=1))
    assert len(folder.at_hand()) == 3


def test_revoking_a_retired_key_makes_it_valid_no_longer_than_it_was(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    first = folder.current()
    folder.rotate(NOW)
    done = folder.revoke(first.hint, NOW + timedelta(days=9), since=NOW - timedelta(days=1))
    assert done.record.not_after == NOW + OVERLAP


def test_unknown_keys_and_damage_are_said(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    with pytest.raises(HeadwayError, match="no signing key"):
        folder.revoke("nonsense", NOW)
    folder.rotate(NOW)
    (tmp_path / "keyring.json").write_text("{")
    with pytest.raises(HeadwayError, match="damaged"):
        KeyFolder(tmp_path).current()


def test_encrypted_keys(tmp_path: Path) -> None:
    sealed = KeyFolder(tmp_path, b"correct horse")
    hint = sealed.current().hint
    assert b"ENCRYPTED" in (tmp_path / "signing.pem").read_bytes()
    assert KeyFolder(tmp_path, b"correct horse").current().hint == hint
    for wrong in (None, b"battery staple"):
        with pytest.raises(HeadwayError, match="cannot be read"):
            KeyFolder(tmp_path, wrong).current()


def test_cosigns_own_key_file_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path, b"testpw")
    folder.current()
    taken = folder.rotate(NOW, take=COSIGN_KEY.read_bytes())
    assert taken.record.hint == COSIGN_HINT.read_text().strip() == folder.current().hint
    assert (tmp_path / "signing-2.pem").read_bytes() == COSIGN_KEY.read_bytes()
    with pytest.raises(HeadwayError, match="already"):
        folder.rotate(NOW, take=COSIGN_KEY.read_bytes())
    assert states(KeyFolder(tmp_path, b"testpw")) == [("signing", "retired"), ("signing-2", "current")]


def greedy(sealed: dict[str, Any]) -> None:
    sealed["kdf"]["params"]["N"] = 1 << 24


def flipped(sealed: dict[str, Any]) -> None:
    raw = bytearray(base64.b64decode(sealed["ciphertext"]))
    raw[-1] ^= 1
    sealed["ciphertext"] = base64.b64encode(raw).decode()


@pytest.mark.parametrize("change", [greedy, flipped, lambda sealed: sealed.pop("cipher"), lambda _: None])
def test_a_damaged_cosign_key_or_a_wrong_password(tmp_path: Path, change: Any) -> None:
    lines = COSIGN_KEY.read_bytes().strip().splitlines()
    sealed = json.loads(base64.b64decode(b"".join(lines[1:-1])))
    change(sealed)
    path = tmp_path / "x.pem"
    path.write_bytes(b"\n".join([lines[0], base64.b64encode(json.dumps(sealed).encode()), lines[-1]]))
    path.chmod(0o600)
    with pytest.raises(HeadwayError, match="cannot be read"):
        load_key(path, b"wrong")


# the signed document


def log_of(key: SigningKey) -> Log:
    return Log(key.public, "ledger.example.test")


def record(key: SigningKey) -> KeyRecord:
    return KeyRecord(key.pem.decode())


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[SigningKey]:
    """The ledger's key, the signing key, and a thief's."""
    return [create_key(tmp_path_factory.mktemp("k")) for _ in range(3)]


def signed(document: KeyringDocument, *keys: SigningKey) -> bytes:
    return sign_keyring(document, [(key.hint, key.raw) for key in keys])


def test_both_keys_have_to_vouch_for_a_keyring(three: list[SigningKey]) -> None:
    ledger, signing, thief = three
    document = KeyringDocument(2, (record(signing), record(thief)))
    opened = open_keyring(signed(document, ledger, signing), log_of(ledger), [signing.public])
    assert [one.hint for one in opened.keys] == [signing.hint, thief.hint]
    for stolen, why in (((signing, thief), "ledger did not"), ((ledger, thief), "no key that is trusted")):
        with pytest.raises(ProofError, match=why):
            open_keyring(signed(document, *stolen), log_of(ledger), [signing.public])


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(payload=base64.b64encode(b'{"version":9,"keys":[]}').decode()),
        lambda d: d.update(payloadType="application/vnd.in-toto+json"),
        lambda d: d.update(signatures=[]),
        lambda d: d.update(signatures={}),
        lambda d: d.update(payload="****"),
        lambda d: d["signatures"][0].update(sig=7),
    ],
)
def test_a_changed_keyring_is_refused(three: list[SigningKey], change: Any) -> None:
    ledger, signing, _ = three
    document = json.loads(signed(KeyringDocument(1, (record(signing),)), ledger, signing))
    change(document)
    with pytest.raises(ProofError):
        open_keyring(json.dumps(document).encode(), log_of(ledger), [signing.public])


def test_a_keyring_of_other_keys_than_p256_is_refused(three: list[SigningKey]) -> None:
    ledger, signing, _ = three
    pem = ec.generate_private_key(ec.SECP384R1()).public_key()
    text = pem.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    with pytest.raises(ProofError, match="P-256"):
        signed(KeyringDocument(1, (KeyRecord(text),)), ledger, signing)
