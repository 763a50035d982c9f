"""Checkpoints: the size and the root of the tree, as a signed note.

The note's first line is the origin, `<host> - <tree id>`, as Rekor writes it and Sigstore's clients expect; then the
size and the root, an empty line, and one signature line. A signature's first four bytes say by which key it is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from adapters.ledger.proofs import ProofError

MAX_NOTE: Final = 4096
HOST: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_SIGNED_BY: Final = "— "
_ECDSA: Final = ec.ECDSA(hashes.SHA256())


def log_id(public: ec.EllipticCurvePublicKey) -> bytes:
    """The SHA-256 of the key's SubjectPublicKeyInfo in DER."""
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).digest()


@dataclass(frozen=True)
class Log:
    """Who the ledger is: the public half of its key, and the host name in its origin."""

    public: ec.EllipticCurvePublicKey
    host: str

    @cached_property
    def id(self) -> bytes:
        return log_id(self.public)

    @cached_property
    def origin(self) -> str:
        """The tree's number is a part of the log's id: one key, one tree."""
        return f"{self.host} - {int.from_bytes(self.id[:8], 'big') >> 1}"

    def verify(self, signature: bytes, data: bytes) -> None:
        """Raises ProofError."""
        try:
            self.public.verify(signature, data, _ECDSA)
        except InvalidSignature:
            raise ProofError("the signature is not the ledger's") from None


@dataclass(frozen=True)
class LogKey:
    """A ledger that can sign: `sign` is ECDSA P-256 over SHA-256, in DER."""

    log: Log
    sign: Callable[[bytes], bytes]


@dataclass(frozen=True)
class Checkpoint:
    size: int
    root: bytes

    def text(self, origin: str) -> bytes:
        return f"{origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n".encode()

    def note(self, key: LogKey) -> str:
        text = self.text(key.log.origin)
        signature = base64.b64encode(key.log.id[:4] + key.sign(text)).decode()
        return f"{text.decode()}\n{_SIGNED_BY}{key.log.host} {signature}\n"


def open_note(note: str, log: Log) -> Checkpoint:
    """The checkpoint of a note that this ledger signed. Raises ProofError."""
    if len(note) > MAX_NOTE:
        raise ProofError("the checkpoint is too long")
    text, separator, signatures = note.partition("\n\n")
    lines = text.split("\n")
    if not separator or len(lines) != 3 or not re.fullmatch(r"0|[1-9][0-9]{0,18}", lines[1]):
        raise ProofError("the checkpoint is malformed")
    if lines[0] != log.origin:
        raise ProofError("the checkpoint is of another ledger")
    found = Checkpoint(int(lines[1]), decoded(lines[2]))
    if len(found.root) != 32 or not signatures.endswith("\n"):
        raise ProofError("the checkpoint is malformed")
    _check_signature(signatures, f"{text}\n".encode(), log)
    return found


def _check_signature(lines: str, text: bytes, log: Log) -> None:
    for line in lines.removesuffix("\n").split("\n"):
        name, _, signature = line.removeprefix(_SIGNED_BY).partition(" ")
        if not line.startswith(_SIGNED_BY) or name != log.host:
            continue
        raw = decoded(signature)
        if raw[:4] == log.id[:4]:
            return log.verify(raw[4:], text)
    raise ProofError("the checkpoint is not signed by the ledger")


def decoded(text: object) -> bytes:
    """Base64 with one reading. Raises ProofError."""
    try:
        if isinstance(text, str):
            raw = base64.b64decode(text, validate=True)
            if base64.b64encode(raw).decode() == text:
                return raw
    except (binascii.Error, ValueError):
        pass
    raise ProofError("what should be base64 is not")
