"""One entry: the body that the tree hashes, the ledger's promise of its time, and both as a `tlogEntries` item.

The body is Rekor's `dsse` 0.0.1 in canonical form: hashes, the signature and the key, never the statement itself, so
that the ledger can be shown to anybody. `check_item` needs the item, the signed statement, and who the ledger is.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import rfc8785

from adapters.ledger.note import Checkpoint, Log, LogKey, decoded, open_note
from adapters.ledger.proofs import ProofError, root_from_inclusion
from adapters.ledger.tree import leaf_hash

Json = dict[str, Any]
KIND: Final = "dsse"
VERSION: Final = "0.0.1"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"


@dataclass(frozen=True)
class Entry:
    """What a ledger entry binds together: the statement, its signature, and the key as PEM."""

    payload: bytes
    signature: bytes
    public_pem: bytes

    def envelope(self) -> bytes:
        """The DSSE envelope as JSON."""
        document = {
            "payload": _text(self.payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": _text(self.signature)}],
        }
        return rfc8785.dumps(document)  # type: ignore[arg-type]

    def body(self) -> bytes:
        """The leaf."""
        return _body(self, hashlib.sha256(self.envelope()).hexdigest())


def entry_of(body: bytes, envelope: bytes) -> Entry:
    """The entry that `Entry.body` and `Entry.envelope` were made of."""
    dsse, spec = json.loads(envelope), json.loads(body)["spec"]
    return Entry(
        base64.b64decode(dsse["payload"]),
        base64.b64decode(dsse["signatures"][0]["sig"]),
        base64.b64decode(spec["signatures"][0]["verifier"]),
    )


@dataclass(frozen=True)
class Logged:
    """An entry as the ledger keeps it. `at` is Unix seconds; `promise` signs body, time, index and ledger."""

    index: int
    at: int
    body: bytes
    promise: bytes


def promise(body: bytes, index: int, at: int, key: LogKey) -> bytes:
    """The signed entry timestamp."""
    return key.sign(_promised(body, index, at, key.log))


def item(logged: Logged, log: Log, note: str, checkpoint: Checkpoint, proof: Sequence[bytes]) -> Json:
    """The entry as a member of a bundle's `tlogEntries` (protobuf JSON of TransparencyLogEntry)."""
    return {
        "logIndex": str(logged.index),
        "logId": {"keyId": _text(log.id)},
        "kindVersion": {"kind": KIND, "version": VERSION},
        "integratedTime": str(logged.at),
        "inclusionPromise": {"signedEntryTimestamp": _text(logged.promise)},
        "inclusionProof": {
            "logIndex": str(logged.index),
            "rootHash": _text(checkpoint.root),
            "treeSize": str(checkpoint.size),
            "hashes": [_text(one) for one in proof],
            "checkpoint": {"envelope": note},
        },
        "canonicalizedBody": _text(logged.body),
    }


def check_item(given: Json, entry: Entry, log: Log) -> datetime:
    """The time at which the ledger took this entry in. Raises ProofError with the first thing that is wrong."""
    try:
        logged, proof = _parse(given, log)
    except (KeyError, TypeError, ValueError) as error:
        raise ProofError(str(error) if isinstance(error, ProofError) else "the entry is malformed") from None
    _check_body(logged.body, entry)
    check_promise(logged, log)
    checkpoint = open_note(proof["checkpoint"]["envelope"], log)
    if str(checkpoint.size) != proof["treeSize"] or checkpoint.root != decoded(proof["rootHash"]):
        raise ProofError("the checkpoint is of another tree than the proof")
    hashes = [decoded(one) for one in proof["hashes"]]
    if root_from_inclusion(logged.index, checkpoint.size, leaf_hash(logged.body), hashes) != checkpoint.root:
        raise ProofError("the entry is not in the ledger's tree")
    return datetime.fromtimestamp(logged.at, UTC)


def check_promise(logged: Logged, log: Log) -> None:
    """Raises ProofError where the ledger did not promise this body at this index and time."""
    try:
        log.verify(logged.promise, _promised(logged.body, logged.index, logged.at, log))
    except ProofError:
        raise ProofError("the ledger did not sign the entry's time") from None


def _parse(given: Json, log: Log) -> tuple[Logged, Json]:
    if given["kindVersion"] != {"kind": KIND, "version": VERSION}:
        raise ProofError("the entry is of another kind")
    if given["logId"] != {"keyId": _text(log.id)}:
        raise ProofError("the entry is of another ledger")
    proof = given["inclusionProof"]
    numbers = (given["logIndex"], given["integratedTime"], proof["logIndex"], proof["treeSize"])
    if any(not isinstance(one, str) or not one.isdecimal() or len(one) > 18 for one in numbers):
        raise ProofError("the entry is malformed")
    if proof["logIndex"] != given["logIndex"]:
        raise ProofError("the proof is for another entry")
    if not isinstance(proof["checkpoint"]["envelope"], str) or len(proof["hashes"]) > 64:
        raise ProofError("the entry is malformed")
    signed = decoded(given["inclusionPromise"]["signedEntryTimestamp"])
    body = decoded(given["canonicalizedBody"])
    return Logged(int(given["logIndex"]), int(given["integratedTime"]), body, signed), proof


def _check_body(raw: bytes, entry: Entry) -> None:
    """The hash of the envelope is not compared: any tool that writes the bundle anew may lay it out differently."""
    try:
        envelope_hash = json.loads(raw)["spec"]["envelopeHash"]["value"]
        whole = isinstance(envelope_hash, str) and _body(entry, envelope_hash) == raw
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ProofError("the entry is malformed") from None
    if not whole:
        raise ProofError("the entry is for another statement, signature or key")


def _body(entry: Entry, envelope_sha256: str) -> bytes:
    return rfc8785.dumps(
        {
            "apiVersion": VERSION,
            "kind": KIND,
            "spec": {
                "envelopeHash": {"algorithm": "sha256", "value": envelope_sha256},
                "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(entry.payload).hexdigest()},
                "signatures": [{"signature": _text(entry.signature), "verifier": _text(entry.public_pem)}],
            },
        }
    )


def _promised(body: bytes, index: int, at: int, log: Log) -> bytes:
    """RFC 8785 by hand: the names are sorted, and the values hold nothing to escape."""
    members = f'"body":"{_text(body)}","integratedTime":{at},"logID":"{log.id.hex()}","logIndex":{index}'
    return f"{{{members}}}".encode()


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
