"""Sigstore bundles v0.3 with a DSSE envelope and a key that is known beforehand.

`check` fails closed, in the order that keeps what is not yet trusted unread: shape, key, ledger, time, signature;
only then is the payload parsed. Its messages say what is wrong and repeat nothing of what they were given.
Sources: sigstore protobuf-specs (Bundle v0.3), DSSE v1 (PAE), and what cosign accepts.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError
from sigstore_models import intoto
from sigstore_models.bundle.v1 import Bundle

from adapters.ledger.bundles import MEDIA_TYPE, bundle_of
from adapters.ledger.dsse import pae
from adapters.ledger.entry import PAYLOAD_TYPE, Entry
from adapters.signer.keys import Keyring, SigningKey, public_pem
from adapters.signer.records import AUDIT_TYPE, DECISION_TYPE, INTEGRITY_TYPE, KEY_TYPE, POLICY_TYPE, ROLLOUT_TYPE
from adapters.signer.statement import BUILD_TYPE, BUILDER_ID, PREDICATE_TYPE, STATEMENT_TYPE
from headway.errors import HeadwayError

MAX_BUNDLE: Final = 1 << 20
RECORD_TYPES: Final = frozenset({ROLLOUT_TYPE, DECISION_TYPE, KEY_TYPE, AUDIT_TYPE, INTEGRITY_TYPE, POLICY_TYPE})
Json = dict[str, Any]


class LedgerWriter(Protocol):
    def append(self, entry: Entry) -> tuple[Entry, Json]:
        """Add one entry, once; answers what stands in the ledger, as given before, and it as a `tlogEntries` item."""


class LedgerReader(Protocol):
    def check(self, items: Sequence[Json], entry: Entry) -> datetime:
        """The trusted time of the entry. Raises artifact.signature_invalid where any proof fails."""


@dataclass(frozen=True)
class Policy:
    """What a statement must say: by which builders, of which kinds of build, for which site."""

    site_id: str
    builder_ids: frozenset[str] = frozenset({BUILDER_ID})
    build_types: frozenset[str] = frozenset({BUILD_TYPE})


@dataclass(frozen=True)
class Verified:
    """What may be believed now. `at` is the ledger's time, or the time of the check where there is no ledger."""

    key_hint: str
    digest: str
    statement: Json
    at: datetime
    entry: Entry
    log_index: int | None = None

    @property
    def build_id(self) -> str:
        return str(self.statement["predicate"]["runDetails"].get("metadata", {}).get("invocationId", ""))


def attest(statement: bytes, key: SigningKey, *, ledger: LedgerWriter | None = None) -> bytes:
    """Sign a statement; answers the bundle as JSON. Raises sign.failed where the signer does not answer."""
    entry = Entry(statement, key.raw(pae(PAYLOAD_TYPE, statement)), key.pem)
    if ledger is None:
        return bundle_of(entry)
    standing, item = ledger.append(entry)
    return bundle_of(standing, item)


def check(
    bundle: bytes,
    digest_hex: str,
    keyring: Keyring,
    policy: Policy,
    *,
    ledger: LedgerReader | None = None,
    now: datetime | None = None,
) -> Verified:
    """Whether `bundle` says that this platform built the artifact of that digest for the policy's site.

    Raises artifact.signature_invalid with the first thing that is wrong.
    """
    hint, entry, at, index = _believe(bundle, keyring, ledger, now)
    return Verified(hint, digest_hex, statement_of(entry.payload, digest_hex, policy), at, entry, index)


def check_record(bundle: bytes, keyring: Keyring, *, ledger: LedgerReader) -> Verified:
    """Whether `bundle` is a record of this platform's: a rollout, a decision, the end of a key, the audit log's hash,
    damage that was found.

    Raises artifact.signature_invalid with the first thing that is wrong.
    """
    hint, entry, at, index = _believe(bundle, keyring, ledger, None)
    statement = _strict_json(entry.payload, "its statement")
    if statement.get("_type") != STATEMENT_TYPE or not _member(statement.get("predicateType"), RECORD_TYPES):
        raise refused("its statement is no record of this platform's")
    subjects = statement.get("subject")
    digest = _at(subjects[0], "digest", "sha256") if isinstance(subjects, list) and len(subjects) == 1 else None
    if not isinstance(digest, str) or not isinstance(statement.get("predicate"), dict):
        raise refused("its record is about nothing")
    return Verified(hint, digest, statement, at, entry, index)


def _believe(
    bundle: bytes, keyring: Keyring, ledger: LedgerReader | None, now: datetime | None
) -> tuple[str, Entry, datetime, int | None]:
    """The signed payload, by whom, when, and where in the ledger: everything before the payload is parsed."""
    document = opened(bundle)
    hint, envelope, items = _shape(document)
    key = keyring.get(hint)
    if key is None:
        raise refused("it is signed by a key that is not trusted here")
    if key.revoked:
        raise refused("its key has been revoked")
    entry = Entry(envelope.payload, envelope.signatures[0].sig, public_pem(key.public))
    if ledger is not None:
        at = ledger.check(items, entry)
    elif items:
        raise refused("it carries ledger entries, and no ledger is trusted here")
    else:
        at = now or datetime.now(UTC)
    if key.revoked_from is not None and at >= key.revoked_from:
        raise refused("its key has been revoked, and it is not older than that")
    if key.not_before is not None and at < key.not_before:
        begins, signed = (moment.isoformat(timespec="seconds") for moment in (key.not_before, at))
        raise refused(
            f"its key was not valid yet: that begins at {begins}, and this was signed at {signed}. If the signing "
            "machine's clock went back, put it right, and build again"
        )
    if key.not_after is not None and at > key.not_after:
        raise refused("its key was no longer valid")
    try:
        key.public.verify(entry.signature, pae(PAYLOAD_TYPE, entry.payload), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise refused("the signature does not fit its contents") from None
    return hint, entry, at, int(items[0]["logIndex"]) if items else None


def hint_of(bundle: bytes) -> str:
    """The hint of the key that a bundle names, unverified; "" where it names none."""
    try:
        return _shape(opened(bundle))[0]
    except HeadwayError:
        return ""


def refused(why: str) -> HeadwayError:
    return HeadwayError("artifact.signature_invalid", f"The artifact's signature bundle was refused: {why}.")


def opened(bundle: bytes) -> Json:
    if not bundle:
        raise refused("it is missing")
    if len(bundle) > MAX_BUNDLE:
        raise refused(f"it is larger than {MAX_BUNDLE} bytes")
    return _strict_json(bundle, "it")


def _strict_json(raw: bytes, what: str) -> Json:
    """One JSON object without duplicate keys or NaN: two readers can never see two different things in it."""

    def pairs(items: list[tuple[str, Any]]) -> Json:
        if len({name for name, _ in items}) != len(items):
            raise refused(f"{what} names a member twice")
        return dict(items)

    def no_constant(_name: str) -> None:
        raise ValueError

    try:
        document = json.loads(raw.decode(), object_pairs_hook=pairs, parse_constant=no_constant)
    except (ValueError, RecursionError):
        raise refused(f"{what} is not JSON") from None
    if not isinstance(document, dict):
        raise refused(f"{what} is not a JSON object")
    return document


def _shape(document: Json) -> tuple[str, intoto.Envelope, list[Json]]:
    if document.get("mediaType") != MEDIA_TYPE:
        raise refused("its media type is not that of a Sigstore bundle v0.3")
    material = document.get("verificationMaterial")
    if not isinstance(material, dict):
        raise refused("it has no verification material")
    if "certificate" in material or "x509CertificateChain" in material:
        raise refused("it carries a certificate where a public key is expected")
    if material.get("timestampVerificationData"):
        raise refused("it carries a time that nobody here vouches for")
    public_key = material.get("publicKey")
    hint = public_key.get("hint") if isinstance(public_key, dict) else None
    if not isinstance(hint, str) or not hint:
        raise refused("it names no public key")
    if not isinstance(document.get("dsseEnvelope"), dict):
        raise refused("it holds no DSSE envelope")
    if document["dsseEnvelope"].get("payloadType") != PAYLOAD_TYPE:
        raise refused("its payload is not an in-toto statement")
    signatures = document["dsseEnvelope"].get("signatures")
    if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], dict):
        raise refused("it does not hold exactly one signature")
    if "keyid" in signatures[0]:
        raise refused("its signature names a key id")
    for text in (document["dsseEnvelope"].get("payload"), signatures[0].get("sig")):
        _canonical_base64(text)
    # The library's model refuses whatever else does not belong; cosign leaves an empty entry list out.
    whole = {**document, "verificationMaterial": {"tlogEntries": [], **material}}
    try:
        parsed = Bundle.from_json(json.dumps(whole))
    except (ValidationError, ValueError, RecursionError):
        raise refused("it is not a well-formed Sigstore bundle") from None
    if parsed.dsse_envelope is None or parsed.to_dict() != whole:
        raise refused("it has more than one reading")
    return hint, parsed.dsse_envelope, whole["verificationMaterial"]["tlogEntries"]


def _canonical_base64(text: object) -> None:
    try:
        if isinstance(text, str) and text and base64.b64encode(base64.b64decode(text, validate=True)).decode() == text:
            return
    except (binascii.Error, ValueError):
        pass
    raise refused("its payload or signature is not base64")


def statement_of(payload: bytes, digest_hex: str, policy: Policy) -> Json:
    statement = _strict_json(payload, "its statement")
    if statement.get("_type") != STATEMENT_TYPE:
        raise refused("its statement is not an in-toto Statement v1")
    if statement.get("predicateType") != PREDICATE_TYPE:
        raise refused("its statement is not SLSA provenance v1")
    subjects = statement.get("subject")
    if not isinstance(subjects, list) or len(subjects) != 1 or _at(subjects[0], "digest", "sha256") != digest_hex:
        raise refused("it was made for another artifact")
    predicate = statement.get("predicate")
    if not _member(_at(predicate, "runDetails", "builder", "id"), policy.builder_ids):
        raise refused("it names a builder that is not trusted here")
    if not _member(_at(predicate, "buildDefinition", "buildType"), policy.build_types):
        raise refused("it names a kind of build that is not trusted here")
    if _at(predicate, "buildDefinition", "externalParameters", "site") != policy.site_id:
        raise refused("it was made for another site")
    return statement


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _member(value: Any, allowed: frozenset[str]) -> bool:
    return isinstance(value, str) and value in allowed
