"""The trust root: who the ledger is, and since when, in the form that Sigstore's clients read (`trusted_root.json`)."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from adapters.ledger.entry import Entry, check_item
from adapters.ledger.note import HOST, Log, decoded
from adapters.ledger.proofs import ProofError
from headway.errors import HeadwayError

ROOT_NAME: Final = "trusted_root.json"
MAX_ROOT: Final = 1 << 16
_MEDIA_TYPE: Final = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
_KEY_DETAILS: Final = "PKIX_ECDSA_P256_SHA_256"
Json = dict[str, Any]


@dataclass(frozen=True)
class TrustedLog:
    """A ledger that is believed, for what it took in from `start` on. A bundle must carry exactly one entry of it."""

    log: Log
    start: datetime

    def check(self, items: Sequence[Json], entry: Entry) -> datetime:
        """The ledger's time of the entry. Raises artifact.signature_invalid where any proof fails."""
        if not items:
            raise _refuse("it carries no entry of the ledger")
        if len(items) > 1:
            raise _refuse("it carries more than one ledger entry")
        try:
            at = check_item(items[0], entry, self.log)
        except ProofError as error:
            raise _refuse(f"ledger: {error}") from None
        if at < self.start:
            raise _refuse("ledger: the entry is older than the ledger")
        return at


def make_root(log: Log, start: datetime) -> bytes:
    """The document. `start` is cut to whole seconds."""
    der = log.public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    key = {
        "rawBytes": base64.b64encode(der).decode(),
        "keyDetails": _KEY_DETAILS,
        "validFor": {"start": start.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")},
    }
    tlog = {
        "baseUrl": f"https://{log.host}",
        "hashAlgorithm": "SHA2_256",
        "publicKey": key,
        "logId": {"keyId": base64.b64encode(log.id).decode()},
    }
    return json.dumps({"mediaType": _MEDIA_TYPE, "tlogs": [tlog]}, indent=1).encode() + b"\n"


def parse_root(raw: bytes, *, name: str = ROOT_NAME) -> TrustedLog:
    """The one ledger of a trust root. Raises internal.error where it is none of ours."""
    try:
        document = json.loads(raw)
        [tlog] = document["tlogs"]
        key = tlog["publicKey"]
        public = serialization.load_der_public_key(decoded(key["rawBytes"]))
        host = tlog["baseUrl"].removeprefix("https://")
        start = datetime.fromisoformat(key["validFor"]["start"])
        known = document["mediaType"] == _MEDIA_TYPE and key["keyDetails"] == _KEY_DETAILS and HOST.fullmatch(host)
        if not known or not isinstance(public, ec.EllipticCurvePublicKey) or start.tzinfo is None:
            raise ValueError
        found = TrustedLog(Log(public, host), start)
        if decoded(tlog["logId"]["keyId"]) != found.log.id:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise HeadwayError("internal.error", f"{name} is not the trust root of a ledger.") from None
    return found


def _refuse(why: str) -> HeadwayError:
    return HeadwayError("artifact.signature_invalid", f"The artifact's signature bundle was refused: {why}.")
