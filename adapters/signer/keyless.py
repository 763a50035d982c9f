"""Keyless: a certificate that Sigstore gives to an identity for ten minutes, in place of a key that somebody keeps.

The same `attest` and `check` as with a key, by the public instance or a private one. What is believed is a document
that hosts pin: the instance's trusted root, and whose certificates count (`Trusted`). There is no way from one mode to
the other: a bundle with a certificate is refused where keys are trusted, one with a key here.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.serialization import Encoding

from adapters.ledger.bundles import MEDIA_TYPE
from adapters.ledger.entry import PAYLOAD_TYPE, Entry
from adapters.signer.bundle import Policy, Verified, opened, refused, statement_of
from headway.errors import HeadwayError

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig, TrustedRoot

SIGSTORE_NAME: Final = "sigstore.json"
MAX_SIGSTORE: Final = 1 << 20
# In place of a key's hint: whose certificate it was.
HINT: Final = "keyless:"
PUBLIC: Final = "public"
Json = dict[str, Any]


@dataclass(frozen=True)
class Trusted:
    """What hosts pin. `root` is Sigstore's `trusted_root.json`; certificates count that say both, and nothing else."""

    root: Json
    identity: str
    issuer: str

    @property
    def raw(self) -> bytes:
        document = {"mode": "keyless", "identity": self.identity, "issuer": self.issuer, "trusted_root": self.root}
        return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"

    def check(self, bundle: bytes, digest_hex: str, policy: Policy) -> Verified:
        """As `adapters.signer.bundle.check`, offline. Raises artifact.signature_invalid with the first thing wrong."""
        document = opened(bundle)
        _require_certificate(document)
        entry, at, index = self.believe(bundle)
        statement = statement_of(entry.payload, digest_hex, policy)
        return Verified(f"{HINT}{self.identity}", digest_hex, statement, at, entry, index)

    def believe(self, bundle: bytes) -> tuple[Entry, datetime, int]:
        """The signed payload and when, everything but what it says. Raises artifact.signature_invalid."""
        from sigstore.errors import Error
        from sigstore.models import Bundle, InvalidBundle, TrustedRoot
        from sigstore.verify import Verifier
        from sigstore.verify.policy import Identity

        whose, root = Identity(identity=self.identity, issuer=self.issuer), _parsed(TrustedRoot, self.root)
        try:
            parsed = Bundle.from_json(bundle)
            kind, payload = Verifier(trusted_root=root).verify_dsse(parsed, whose)
        except InvalidBundle:
            raise refused("it is not a well-formed Sigstore bundle") from None
        except Error as error:
            said = str(error).split("\n", 1)[0][:200]
            raise refused(f"Sigstore: {said if said.isprintable() else type(error).__name__}") from None
        except Exception as error:
            # Whatever a certificate makes the library stumble over, it is not believed.
            raise refused(f"Sigstore cannot read it: {type(error).__name__}") from None
        if kind != PAYLOAD_TYPE:
            raise refused("its payload is not an in-toto statement")
        entry = Entry(payload, parsed.signature, parsed.signing_certificate.public_bytes(Encoding.PEM))
        [logged] = json.loads(bundle)["verificationMaterial"]["tlogEntries"]
        # A certificate lives for minutes: the time that its authority vouches for.
        return entry, parsed.signing_certificate.not_valid_before_utc, int(logged["logIndex"])


@dataclass(frozen=True)
class Keyless:
    """Signs as `trusted.identity`. `token` is asked for each signature: an OIDC identity token that is still good."""

    trusted: Trusted
    config: ClientTrustConfig
    token: Callable[[], str]
    client_id: str = "sigstore"

    def attest(self, statement: bytes) -> bytes:
        """The bundle, checked before it is given out. Raises sign.failed (retryable): there is no other way."""
        from sigstore.dsse import Statement
        from sigstore.oidc import IdentityToken
        from sigstore.sign import SigningContext

        raw_token = self.token()
        try:
            token = IdentityToken(raw_token, self.client_id)
            with SigningContext.from_trust_config(self.config).signer(token) as signer:
                raw = signer.sign_dsse(Statement(statement)).to_json().encode()
        except Exception as error:
            # Neither the token is repeated nor what an instance may have echoed of it.
            raise HeadwayError("sign.failed", f"Sigstore gave no signature: {type(error).__name__}.") from None
        try:
            self.trusted.believe(raw)
        except HeadwayError as error:
            raise HeadwayError("sign.failed", f"Sigstore signed as somebody else: {error.message}") from None
        return raw


def open_keyless(
    trust: str, identity: str, issuer: str, token_file: Path | None, client_id: str = "sigstore"
) -> Keyless:
    """`trust` is `public` or the path of a client trust configuration. Raises stack.setting_invalid."""
    if not identity or not issuer:
        message = "Keyless signing needs HEADWAY_SIGSTORE_IDENTITY and HEADWAY_SIGSTORE_ISSUER: whose signatures count."
        raise HeadwayError("stack.setting_invalid", message)
    config, root = _configuration(trust)
    return Keyless(Trusted(root, identity, issuer), config, lambda: _token(token_file, client_id), client_id)


def open_trusted(raw: bytes, *, name: str = SIGSTORE_NAME) -> Trusted:
    """What a host pinned. Raises internal.error where it is none."""
    from sigstore.models import TrustedRoot

    try:
        document = json.loads(raw)
        if document["mode"] != "keyless" or not all(isinstance(document[one], str) for one in ("identity", "issuer")):
            raise ValueError
        _parsed(TrustedRoot, document["trusted_root"])
        return Trusted(document["trusted_root"], document["identity"], document["issuer"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise HeadwayError("internal.error", f"{name} does not say whom to trust.") from None


def is_keyless(bundle: bytes) -> bool:
    """Whether a bundle carries a certificate, unverified."""
    try:
        material = opened(bundle).get("verificationMaterial")
    except HeadwayError:
        return False
    return isinstance(material, dict) and ("certificate" in material or "x509CertificateChain" in material)


def _require_certificate(document: Json) -> None:
    if document.get("mediaType") != MEDIA_TYPE:
        raise refused("its media type is not that of a Sigstore bundle v0.3")
    material = document.get("verificationMaterial")
    if not isinstance(material, dict):
        raise refused("it has no verification material")
    if "publicKey" in material:
        raise refused("it is signed with a key, and this installation trusts certificates of Sigstore's alone")
    if not isinstance(document.get("dsseEnvelope"), dict):
        raise refused("it holds no DSSE envelope")


def _configuration(trust: str) -> tuple[ClientTrustConfig, Json]:
    from sigstore.models import ClientTrustConfig

    try:
        if trust == PUBLIC:
            config = ClientTrustConfig.production()
            return config, json.loads(config.trusted_root._inner.to_json())
        raw = Path(trust).read_text()
        return ClientTrustConfig.from_json(raw), json.loads(raw)["trustedRoot"]
    except Exception as error:
        message = (
            f"HEADWAY_SIGSTORE_TRUST names no client trust configuration that can be read: {type(error).__name__}."
        )
        raise HeadwayError("stack.setting_invalid", message) from None


def _token(file: Path | None, client_id: str) -> str:
    """Read anew each time: whoever gives out the token renews the file, and it is good for minutes."""
    from sigstore.oidc import detect_credential

    try:
        found = file.read_text().strip() if file is not None else detect_credential(client_id)
    except Exception as error:
        raise HeadwayError("sign.failed", f"The identity token cannot be had: {type(error).__name__}.") from None
    if not found:
        raise HeadwayError("sign.failed", "There is no identity token, and keyless signing takes nothing in its place.")
    return found


def _parsed(kind: type[TrustedRoot], root: Json) -> TrustedRoot:
    """The library reads a file."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(root, file)
        file.flush()
        return kind.from_file(file.name)
