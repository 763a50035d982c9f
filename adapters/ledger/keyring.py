"""The keyring: which signing keys count, from when to when, as a document that hosts take from anybody's hand.

It is a DSSE envelope. Two have to sign it: the ledger's key, and a signing key that the reader trusts already. So a
thief of either key alone can introduce no key and undo no revocation; and no reader goes back to an older version.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from adapters.ledger.dsse import pae
from adapters.ledger.note import Log, decoded, log_id
from adapters.ledger.proofs import ProofError

PAYLOAD_TYPE: Final = "application/vnd.headway.keyring+json"
KEYRING_NAME: Final = "keyring.json"
MAX_KEYRING: Final = 1 << 18
EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
Json = dict[str, Any]
Sign = Callable[[bytes], bytes]


@dataclass(frozen=True)
class KeyRecord:
    """One signing key. Times are aware; `revoked_from` is the ledger's time from which its work is void (EVER: all)."""

    public_pem: str
    not_before: datetime | None = None
    not_after: datetime | None = None
    revoked_from: datetime | None = None
    reason: str | None = None

    @property
    def public(self) -> ec.EllipticCurvePublicKey:
        """Raises ProofError where it is not a P-256 key."""
        try:
            key = serialization.load_pem_public_key(self.public_pem.encode())
        except ValueError:
            key = None
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ProofError("a key of the keyring is not a P-256 key")
        return key

    @property
    def hint(self) -> str:
        return base64.b64encode(log_id(self.public)).decode()

    @property
    def state(self) -> str:
        """current | retired | revoked."""
        if self.revoked_from is not None:
            return "revoked"
        return "current" if self.not_after is None else "retired"

    def as_dict(self) -> Json:
        times = {name: getattr(self, name) for name in ("not_before", "not_after", "revoked_from")}
        shown = {name: moment.astimezone(UTC).isoformat() if moment else None for name, moment in times.items()}
        return {"hint": self.hint, "public_key": self.public_pem, **shown, "reason": self.reason}


@dataclass(frozen=True)
class KeyringDocument:
    """`version` grows with every change, also over those that a restored database has forgotten."""

    version: int
    keys: tuple[KeyRecord, ...]


def record_of(raw: Json) -> KeyRecord:
    """Raises ValueError, KeyError or TypeError for what is no record."""
    times = {name: _moment(raw[name]) for name in ("not_before", "not_after", "revoked_from")}
    if not isinstance(raw["public_key"], str) or not isinstance(raw.get("reason"), str | None):
        raise ProofError("the keyring is malformed")
    return KeyRecord(raw["public_key"], reason=raw.get("reason"), **times)


def sign_keyring(document: KeyringDocument, signers: Iterable[tuple[str, Sign]]) -> bytes:
    """The envelope. `signers` are hints with their signing functions: the ledger's, and every signing key at hand."""
    payload = rfc8785.dumps({"version": document.version, "keys": [one.as_dict() for one in document.keys]})
    message = pae(PAYLOAD_TYPE, payload)
    signatures = [{"keyid": hint, "sig": base64.b64encode(sign(message)).decode()} for hint, sign in signers]
    envelope = {"payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD_TYPE, "signatures": signatures}
    return json.dumps(envelope, indent=1).encode() + b"\n"


def read_keyring(raw: bytes) -> KeyringDocument:
    """What a document says, unverified. Raises ProofError."""
    return _parse(_payload(_envelope(raw)))


def open_keyring(raw: bytes, log: Log, trusted: Sequence[ec.EllipticCurvePublicKey]) -> KeyringDocument:
    """What a document says, if the ledger and one of the trusted keys signed it. Raises ProofError."""
    if len(raw) > MAX_KEYRING:
        raise ProofError("the keyring is too large")
    envelope = _envelope(raw)
    payload = _payload(envelope)
    message = pae(PAYLOAD_TYPE, payload)
    if not _signed(envelope, message, [log.public]):
        raise ProofError("the ledger did not sign the keyring")
    if not _signed(envelope, message, trusted):
        raise ProofError("no key that is trusted here signed the keyring")
    return _parse(payload)


def _envelope(raw: bytes) -> Json:
    try:
        envelope = json.loads(raw)
        if envelope["payloadType"] != PAYLOAD_TYPE or not isinstance(envelope["signatures"], list):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ProofError("the keyring is malformed") from None
    return dict(envelope)


def _payload(envelope: Json) -> bytes:
    return decoded(envelope.get("payload"))


def _signed(envelope: Json, message: bytes, keys: Sequence[ec.EllipticCurvePublicKey]) -> bool:
    for one in envelope["signatures"][:64]:
        for key in keys:
            try:
                key.verify(decoded(one["sig"]), message, ec.ECDSA(hashes.SHA256()))
            except (InvalidSignature, ProofError, KeyError, TypeError):
                continue
            return True
    return False


def _parse(payload: bytes) -> KeyringDocument:
    try:
        document = json.loads(payload)
        keys = tuple(record_of(one) for one in document["keys"])
        version = document["version"]
        if not isinstance(version, int) or not keys or not all(one.hint for one in keys):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ProofError("the keyring is malformed") from None
    return KeyringDocument(version, keys)


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ProofError("the keyring is malformed")
    return moment
