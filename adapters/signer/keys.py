"""Key files and the ring of trusted public keys.

A key pair is two PEM files: `NAME.pem` (PKCS8, mode 0600) and `NAME.pub` (SubjectPublicKeyInfo). Only ECDSA P-256
keys are taken: it is what every Sigstore client verifies.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from adapters.ledger.keyring import EVER, KeyRecord
from adapters.signer.cosign_key import is_cosign_key, open_cosign_key
from adapters.signer.reasons import why
from headway.errors import HeadwayError
from headway.owning import give_to_owner_of_folder

if TYPE_CHECKING:
    from securesystemslib.signer import Signer  # type: ignore[attr-defined]

SIGNING: Final = "signing"
LEDGER: Final = "ledger"


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

    def raw(self, data: bytes) -> bytes:
        """The signature of these bytes, in DER. Raises sign.failed where the signer does not answer."""
        try:
            return bytes.fromhex(self.signer.sign(data).signature)
        except Exception as error:
            raise HeadwayError("sign.failed", f"The signer failed: {why(error)}.") from error

    def current(self) -> SigningKey:
        """A key alone is a keyring of one."""
        return self

    def ring(self) -> Keyring:
        return Keyring.of(self)

    def at_hand(self) -> list[SigningKey]:
        return [self]

    def records(self) -> tuple[KeyRecord, ...]:
        return (KeyRecord(self.pem.decode()),)

    @property
    def hint(self) -> str:
        return key_hint(self.public)

    @property
    def pem(self) -> bytes:
        return public_pem(self.public)


def load_key(path: Path, password: bytes | None = None) -> SigningKey:
    """The key pair of a PKCS8 file. Raises internal.error where it is missing, open to others, or of another kind."""
    try:
        if path.stat().st_mode & 0o077:
            raise HeadwayError("internal.error", f"{path.name} may be read by others: chmod 600 it.")
        private = read_private(path.read_bytes(), password)
    except (OSError, ValueError, TypeError) as error:
        raise HeadwayError("internal.error", f"The key {path.name} cannot be read.") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise HeadwayError("internal.error", f"The key {path.name} is not an ECDSA P-256 key.")
    return of_private(private)


def of_private(private: ec.EllipticCurvePrivateKey) -> SigningKey:
    from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

    public = private.public_key()
    return SigningKey(CryptoSigner(private, SSlibKey.from_crypto(public, keyid=key_hint(public))), public)


def read_private(pem: bytes, password: bytes | None) -> object:
    """The private key of a file's bytes. Raises ValueError or TypeError."""
    if is_cosign_key(pem):
        return open_cosign_key(pem, password or b"")
    # A password that is set is not for a file that needs none.
    encrypted = b"ENCRYPTED" in pem.split(b"\n", 1)[0]
    return serialization.load_pem_private_key(pem, password if encrypted else None)


def create_key(folder: Path, name: str = SIGNING, password: bytes | None = None) -> SigningKey:
    """The key pair `name` in `folder`, made on the first call. Two callers at once get the same pair."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{name}.pem"
    if not path.exists():
        _write_once(path, _private_pem(ec.generate_private_key(ec.SECP256R1()), password), 0o600)
    key = load_key(path, password)
    if not (folder / f"{name}.pub").exists():
        _write_once(folder / f"{name}.pub", key.pem, 0o644)
    return key


def keep_key(folder: Path, name: str, pem: bytes, password: bytes | None = None) -> SigningKey:
    """Put a key file into the folder, as it is, once it has been opened. Raises internal.error like `load_key`."""
    _write_once(folder / f"{name}.pem", pem, 0o600)
    try:
        key = load_key(folder / f"{name}.pem", password)
    except HeadwayError:
        (folder / f"{name}.pem").unlink()
        raise
    _write_once(folder / f"{name}.pub", key.pem, 0o644)
    return key


def _private_pem(private: ec.EllipticCurvePrivateKey, password: bytes | None) -> bytes:
    kept: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        kept = serialization.BestAvailableEncryption(password)
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, kept)


def write_aside(path: Path, body: bytes, mode: int) -> None:
    """Replace a file in one step."""
    _aside(path, body, mode, lambda aside: aside.replace(path))


def publish_key(key: SigningKey, folder: Path) -> None:
    """Leave the public half where hosts and the API look for it. An earlier key stays beside it: it was trusted once.

    One of that name by another key is renamed after its own hint first.
    """
    path = folder / f"{SIGNING}.pub"
    if path.exists() and path.read_bytes() != key.pem:
        earlier = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        path.replace(folder / f"signing-{earlier}.pub")
    _write_once(path, key.pem, 0o644)


def _write_once(path: Path, body: bytes, mode: int) -> None:
    """A whole file or none: written aside, then linked into place unless another was there first."""

    def place(aside: Path) -> None:
        try:
            os.link(aside, path)
        except FileExistsError:
            return

    _aside(path, body, mode, place)


def _aside(path: Path, body: bytes, mode: int, place: Callable[[Path], object]) -> None:
    aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            give_to_owner_of_folder(descriptor, path)
            os.fchmod(descriptor, mode)
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        place(aside)
    finally:
        aside.unlink(missing_ok=True)


@dataclass(frozen=True)
class TrustedKey:
    """A public key with the times (aware) between which its signatures count.

    `revoked` ends them all, `revoked_from` those of that time and later.
    """

    public: ec.EllipticCurvePublicKey
    not_before: datetime | None = None
    not_after: datetime | None = None
    revoked: bool = False
    revoked_from: datetime | None = None


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

    @property
    def publics(self) -> list[ec.EllipticCurvePublicKey]:
        """Those that are not revoked."""
        return [key.public for key in self._keys.values() if not key.revoked and key.revoked_from is None]

    def get(self, hint: str) -> TrustedKey | None:
        return self._keys.get(hint)

    def is_revoked(self, hint: str) -> bool:
        key = self._keys.get(hint)
        return key is not None and (key.revoked or key.revoked_from is not None)

    def __len__(self) -> int:
        return len(self._keys)


def ring_of(records: Iterable[KeyRecord]) -> Keyring:
    """The ring that a keyring document describes."""
    return Keyring(
        TrustedKey(
            one.public,
            one.not_before,
            one.not_after,
            revoked=one.revoked_from is not None and one.revoked_from <= EVER,
            revoked_from=one.revoked_from,
        )
        for one in records
    )
