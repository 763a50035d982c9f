"""Configuration on its way to one host, and on its disk: HPKE (RFC 9180) to the host's own X25519 key.

A light process opens it at every start of an app, the control plane up or down, so nothing but `cryptography` is
imported here.

    magic "HWSEALED" | version 1 | length of the header, 2 bytes | header, JSON | HPKE: encapsulated key, AES-256-GCM

The header says for which host, environment, release and rollout it was made, and is bound to the rest.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

MAGIC: Final = b"HWSEALED"
VERSION: Final = 1
SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
FILE_NAME: Final = "config.sealed"


class SealedError(ValueError):
    """Not for this host's key, not for this release, or not what was sealed. Says nothing of what is inside."""


@dataclass(frozen=True)
class Seat:
    """Where a sealed configuration belongs. `seq` is the release's folder on the host."""

    host_id: str = ""
    env_id: str = ""
    seq: int = 0
    rollout_id: str = ""
    config_version: int = 0


def make_host_key(path: Path) -> None:
    """A new key, 32 bytes as base64, mode 0600. What is there already stays."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(base64.b64encode(X25519PrivateKey.generate().private_bytes_raw()) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)
        except FileExistsError:
            return
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def public_of(path: Path) -> str:
    """The public half of a host's key, as base64. Raises SealedError and OSError."""
    return base64.b64encode(_private(path).public_key().public_bytes_raw()).decode()


def is_public_key(text: str) -> bool:
    try:
        _public(text)
    except SealedError:
        return False
    return True


def seal(public: str, values: Mapping[str, str], seat: Seat = Seat()) -> bytes:
    """Only the holder of the other half of `public` reads `values`. Raises SealedError for what is no key."""
    header = json.dumps(asdict(seat), sort_keys=True, separators=(",", ":")).encode()
    front = MAGIC + bytes((VERSION,)) + len(header).to_bytes(2, "big") + header
    return front + SUITE.encrypt(json.dumps(dict(values)).encode(), _public(public), info=front)


def seat_of(sealed: bytes) -> Seat:
    """What the header says; it is only proved by opening. Raises SealedError."""
    return _split(sealed)[2]


def open_sealed(path: Path, key_file: Path) -> dict[str, str]:
    """The variables of a release. Raises SealedError and OSError.

    In its place on a host (`env/<env_id>/r/<seq>/config.sealed`) it has to be the one that was made for that place.
    """
    front, body, seat = _split(path.read_bytes())
    _check_place(path, seat)
    try:
        plain = SUITE.decrypt(body, _private(key_file), info=front)
    except (InvalidTag, ValueError):
        raise SealedError(f"{path.name} is not sealed to this host's key, or was changed.") from None
    return {str(name): str(value) for name, value in json.loads(plain).items()}


def _split(sealed: bytes) -> tuple[bytes, bytes, Seat]:
    start = len(MAGIC) + 3
    if len(sealed) < start or not sealed.startswith(MAGIC):
        raise SealedError("This is no sealed configuration.")
    if sealed[len(MAGIC)] != VERSION:
        raise SealedError(f"Version {sealed[len(MAGIC)]} of sealed configurations is not known here.")
    end = start + int.from_bytes(sealed[start - 2 : start], "big")
    try:
        seat = Seat(**json.loads(sealed[start:end]))
    except (ValueError, TypeError):
        raise SealedError("The header of a sealed configuration cannot be read.") from None
    return sealed[:end], sealed[end:], seat


def _check_place(path: Path, seat: Seat) -> None:
    parts = path.absolute().parts
    if path.name != FILE_NAME or len(parts) < 5 or (parts[-5], parts[-3]) != ("env", "r"):
        return
    if (parts[-4], parts[-2]) != (seat.env_id, str(seat.seq)):
        raise SealedError(f"{path.name} was made for another release.")


def _private(path: Path) -> X25519PrivateKey:
    try:
        return X25519PrivateKey.from_private_bytes(base64.b64decode(path.read_bytes().strip(), validate=True))
    except (binascii.Error, ValueError):
        raise SealedError(f"{path.name} is no key.") from None


def _public(text: str) -> X25519PublicKey:
    try:
        return X25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise SealedError("That is no public key of a host.") from None
