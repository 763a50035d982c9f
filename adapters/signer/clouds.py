"""Keys of Google Cloud KMS and of Azure Key Vault, by securesystemslib's signers and the vendors' own clients.

Both clients are made when they are first asked, over HTTPS and through `HTTPS_PROXY` where that is set. Google's speaks
REST, not gRPC: the signing worker may have been forked. Neither is installed with Headway:
`pip install 'securesystemslib[gcpkms]'` or `'securesystemslib[azurekms]'`.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from securesystemslib.signer import (  # type: ignore[attr-defined]
    AzureSigner,
    GCPSigner,
    Signature,
    Signer,
    SSlibKey,
)

from adapters.signer.keys import public_pem
from headway.errors import HeadwayError

SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
GOOGLE_NAME: Final = re.compile(
    r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+/cryptoKeyVersions/[0-9]+"
)
AZURE_NAME: Final = re.compile(r"//[A-Za-z0-9.-]+/keys/[A-Za-z0-9-]+/[0-9a-f]+")


class CloudSigner(Signer):
    """What the two have in common: a name that is checked, and a client for later."""

    pattern: re.Pattern[str]
    form: str

    def __init__(self, name: str, options: dict[str, str]) -> None:
        if self.pattern.fullmatch(name) is None:
            message = f"name the key with its version: {self.form}"
            raise HeadwayError("request.invalid_parameter", message, param="kms")
        self.name, self.options = name, options

    @property
    def public_key(self) -> Any:
        raise NotImplementedError

    @classmethod
    def from_priv_key_uri(cls, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    @cached_property
    def signer(self) -> Any:
        """The library's, with the client of this key."""
        raise NotImplementedError

    def public_pem(self) -> bytes:
        """Asked of the service."""
        raise NotImplementedError

    def sign(self, payload: bytes) -> Signature:
        made: Signature = self.signer.sign(payload)
        return made


class GoogleSigner(CloudSigner):
    pattern, form = GOOGLE_NAME, "gcpkms:projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/1"

    @cached_property
    def client(self) -> Any:
        import google.auth
        from google.cloud import kms

        if file := self.options.get("credentials_file"):
            credentials, _ = google.auth.load_credentials_from_file(file, scopes=[SCOPE])  # type: ignore[no-untyped-call]
        else:
            credentials, _ = google.auth.default(scopes=[SCOPE])
        return kms.KeyManagementServiceClient(credentials=credentials, transport="rest")

    @cached_property
    def signer(self) -> Any:
        made = GCPSigner.__new__(GCPSigner)
        made.gcp_keyid, made.client, made.hash_algorithm = self.name, self.client, "sha256"
        made._public_key = _asked_for_its_scheme()
        return made

    def public_pem(self) -> bytes:
        return str(self.client.get_public_key(request={"name": self.name}).pem).encode()


class AzureKeySigner(CloudSigner):
    pattern, form = AZURE_NAME, "azurekms://VAULT.vault.azure.net/keys/KEY/VERSION"

    @cached_property
    def credential(self) -> Any:
        from azure.identity import ClientSecretCredential, DefaultAzureCredential

        given = [self.options.get(name, "") for name in ("tenant", "client", "secret_file")]
        if not any(given):
            return DefaultAzureCredential()
        tenant, client, file = given
        return ClientSecretCredential(tenant, client, Path(file).read_text().strip())

    @cached_property
    def signer(self) -> Any:
        from azure.keyvault.keys.crypto import CryptographyClient, SignatureAlgorithm

        made = AzureSigner.__new__(AzureSigner)
        made.crypto_client = CryptographyClient(f"https:{self.name}", credential=self.credential)
        made.signature_algorithm, made.hash_algorithm = SignatureAlgorithm.es256, "sha256"
        made._public_key = _asked_for_its_scheme()
        return made

    def public_pem(self) -> bytes:
        """Of the very version. Raises request.invalid_parameter for a key of another kind."""
        from azure.keyvault.keys import KeyClient

        vault, _, key_name, version = self.name.removeprefix("//").split("/")
        client = KeyClient(f"https://{vault}/", credential=self.credential)
        key: Any = client.get_key(key_name, version).key
        if str(getattr(key.crv, "value", key.crv)) != "P-256":
            raise HeadwayError("request.invalid_parameter", "it is not a P-256 key", param="kms")
        x, y = (int.from_bytes(number, "big") for number in (key.x, key.y))
        return public_pem(ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key())


def _asked_for_its_scheme() -> Any:
    """What the library's signers look at of the public half."""
    return SSlibKey("", "ecdsa", "ecdsa-sha2-nistp256", {"public": ""})
