"""A signed statement and its ledger entry as one document: a Sigstore bundle v0.3 with a public key's hint."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from adapters.ledger.entry import Entry
from adapters.ledger.note import log_id
from headway.errors import HeadwayError

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
Json = dict[str, Any]


def bundle_of(entry: Entry, item: Json | None = None) -> bytes:
    """The bundle as JSON. `item` is the entry as a `tlogEntries` member; without it the bundle proves no time."""
    public = serialization.load_pem_public_key(entry.public_pem)
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise HeadwayError("internal.error", "The entry is not by a P-256 key.")
    document = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": base64.b64encode(log_id(public)).decode()},
            "tlogEntries": [] if item is None else [item],
        },
        "dsseEnvelope": json.loads(entry.envelope()),
    }
    return json.dumps(document, separators=(",", ":")).encode()
