"""Key files and the ring of trusted public keys.

A key pair is two PEM files: `NAME.pem` (PKCS8, mode 0600) and `NAME.pub` (SubjectPublicKeyInfo). Only ECDSA P-256
keys are taken: it is what every Sigstore client verifies.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from headway.errors import HeadwayError

if TYPE_CHECKING:
    from securesystemslib.signer import Signer  # type: ignore[attr-defined]

PRIVATE_NAME = "signing.pem"
PUBLIC_NAME = "signing.pub"


def key_hint(public: ec.EllipticCurvePublicKey) -> str:
    """Base64 of the SHA-256 of the key's SubjectPublicKeyInfo in DER, as cosign writes it."""
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


def public_pem(public: ec.EllipticCurvePublicKey) -> bytes:
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def parse_public(pem: bytes, *, name: str = "the key") -> ec.EllipticCurvePublicKey:
    """Raises internal.error where `pem` is not a P-256 public key."""
    try:
        key = serialization.load_pem_public_key(pem)
    except ValueError:
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise HeadwayError("internal.error", f"{name} is not a P-256 public key in PEM.")
    return key


@dataclass(frozen=True)
class SigningKey:
    """A signer (a file's key here, a KMS's where one is set) and the public half of its key."""

    signer: Signer
    public: ec.EllipticCurvePublicKey

    @property
    def hint(self) -> str:
        return key_hint(self.public)

    @property
    def pem(self) -> bytes:
        return public_pem(self.public)


def load_key(path: Path) -> SigningKey:
    """The key pair of a PKCS8 file. Raises internal.error where it is missing, open to others, or of another kind."""
    from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

    try:
        if path.stat().st_mode & 0o077:
            raise HeadwayError("internal.error", f"{path.name} may be read by others: chmod 600 it.")
        private = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise HeadwayError("internal.error", f"The signing key {path.name} cannot be read.") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise HeadwayError("internal.error", f"The signing key {path.name} is not an ECDSA P-256 key.")
    public = private.public_key()
    signer = CryptoSigner(private, SSlibKey.from_crypto(public, keyid=key_hint(public)))
    return SigningKey(signer, public)


def create_key(folder: Path) -> SigningKey:
    """The key pair in `folder`, made on the first call. Two callers at once get the same pair."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / PRIVATE_NAME
    if not path.exists():
        private = ec.generate_private_key(ec.SECP256R1())
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write_once(path, pem, 0o600)
    key = load_key(path)
    if not (folder / PUBLIC_NAME).exists():
        _write_once(folder / PUBLIC_NAME, key.pem, 0o644)
    return key


def publish_key(key: SigningKey, folder: Path) -> None:
    """Leave the public half where hosts and the API look for it. An earlier key stays beside it: it was trusted once.

    One of that name by another key is renamed after its own hint first.
    """
    path = folder / PUBLIC_NAME
    if path.exists() and path.read_bytes() != key.pem:
        earlier = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        path.replace(folder / f"signing-{earlier}.pub")
    _write_once(path, key.pem, 0o644)


def _write_once(path: Path, body: bytes, mode: int) -> None:
    """A whole file or none: written aside, then linked into place unless another was there first."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(aside, path)
        except FileExistsError:
            return
    finally:
        aside.unlink()


@dataclass(frozen=True)
class TrustedKey:
    """A public key with the times (aware) between which its signatures count; `revoked` ends them all."""

    public: ec.EllipticCurvePublicKey
    not_before: datetime | None = None
    not_after: datetime | None = None
    revoked: bool = False


class Keyring:
    """Trusted keys by hint. An empty ring verifies nothing."""

    def __init__(self, keys: Iterable[TrustedKey] = ()) -> None:
        self._keys = {key_hint(key.public): key for key in keys}

    @classmethod
    def from_folder(cls, folder: Path) -> Keyring:
        """Every `*.pub` of a folder. Raises internal.error where one is not a P-256 key."""
        return cls(TrustedKey(parse_public(path.read_bytes(), name=path.name)) for path in sorted(folder.glob("*.pub")))

    @classmethod
    def of(cls, *keys: SigningKey) -> Keyring:
        return cls(TrustedKey(key.public) for key in keys)

    def get(self, hint: str) -> TrustedKey | None:
        return self._keys.get(hint)

    def __len__(self) -> int:
        return len(self._keys)
