"""Signing keys that never leave their service: AWS KMS, Vault's transit engine, and those of Google and Azure.

A key is named by a URI, which holds no secret:

    awskms:KEY?region=…&profile=…&credentials_file=…&endpoint=…     KEY: id, ARN or alias/NAME; ECC_NIST_P256
    vault:NAME/VERSION?address=…&token_file=…&mount=transit&namespace=…     of the type ecdsa-p256
    gcpkms:projects/P/…/cryptoKeyVersions/N?credentials_file=…     EC_SIGN_P256_SHA256
    azurekms://NAME.vault.azure.net/keys/KEY/VERSION?tenant=…&client=…&secret_file=…     P-256
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlsplit

import httpx
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from securesystemslib.signer import AWSSigner, Signature, Signer, SSlibKey  # type: ignore[attr-defined]

from adapters.signer.clouds import AzureKeySigner, GoogleSigner
from adapters.signer.keys import SigningKey, parse_public, public_pem
from adapters.signer.reasons import why
from headway.errors import HeadwayError

PROBE: Final = b"headway: is this the key?"
TIMEOUT: Final = 10.0
OPTIONS: Final = {
    "awskms": frozenset({"region", "profile", "credentials_file", "endpoint"}),
    "vault": frozenset({"address", "token_file", "mount", "namespace"}),
    "gcpkms": frozenset({"credentials_file"}),
    "azurekms": frozenset({"tenant", "client", "secret_file"}),
}
AWS_FILES: Final = (
    ("credentials_file", "AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    ("config_file", "AWS_CONFIG_FILE", "~/.aws/config"),
)


def take_remote(uri: str) -> SigningKey:
    """The key behind a URI, asked for its public half and tried once.

    Raises request.invalid_parameter where it is no P-256 key, or does not sign.
    """
    public = _public_of(uri)
    key = load_remote(uri, public)
    try:
        public.verify(key.raw(PROBE), PROBE, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise _refused(uri, "what it signs does not fit its public key") from None
    return key


def load_remote(uri: str, public: ec.EllipticCurvePublicKey) -> SigningKey:
    """A key that was taken before; nothing is asked until it has to sign."""
    return SigningKey(_signer(uri), public)


class KmsSigner(AWSSigner):
    """AWS KMS through a client of its own: the process's AWS_… are those of the object store."""

    def __init__(self, key_id: str, client: Any) -> None:
        self.aws_key_id, self.client = key_id, client
        self.aws_algo = self.aws_algos["ecdsa-sha2-nistp256"]
        # What it asks of the public half is the hash.
        self._public_key = SSlibKey("", "ecdsa", "ecdsa-sha2-nistp256", {"public": ""})


class VaultSigner(Signer):
    """Vault's transit engine over HTTP: securesystemslib's own signer takes Ed25519 alone, which no bundle may carry.

    The token is read for each signature, so that it can be renewed.
    """

    def __init__(self, name: str, version: int, options: dict[str, str]) -> None:
        self._name, self._version = name, version
        self._base = (options.get("address") or os.environ.get("VAULT_ADDR", "https://127.0.0.1:8200")).rstrip("/")
        self._mount = options.get("mount", "transit").strip("/")
        self._token_file = options.get("token_file")
        self._namespace = options.get("namespace")

    @property
    def public_key(self) -> Any:
        raise NotImplementedError

    @classmethod
    def from_priv_key_uri(cls, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    def sign(self, payload: bytes) -> Signature:
        body = {
            "input": base64.b64encode(payload).decode(),
            "key_version": self._version,
            "marshaling_algorithm": "asn1",
        }
        signed = self._ask("POST", f"sign/{quote(self._name, safe='')}/sha2-256", body)["signature"]
        return Signature("", base64.b64decode(str(signed).rpartition(":")[2], validate=True).hex())

    def public_pem(self) -> bytes:
        """Raises request.invalid_parameter where Vault has no such P-256 key."""
        found = self._ask("GET", f"keys/{quote(self._name, safe='')}")
        version = found.get("keys", {}).get(str(self._version))
        if found.get("type") != "ecdsa-p256" or not isinstance(version, dict):
            message = f"Vault has no version {self._version} of an ecdsa-p256 key {self._name}."
            raise HeadwayError("request.invalid_parameter", message, param="take")
        return str(version["public_key"]).encode()

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {"X-Vault-Token": self._token(), "X-Vault-Request": "true"}
        if self._namespace:
            headers["X-Vault-Namespace"] = self._namespace
        address = f"{self._base}/v1/{self._mount}/{path}"
        answer = httpx.request(method, address, json=body, headers=headers, timeout=TIMEOUT, follow_redirects=False)
        answer.raise_for_status()
        return dict(answer.json()["data"])

    def _token(self) -> str:
        if self._token_file:
            return Path(self._token_file).read_text().strip()
        return os.environ.get("VAULT_TOKEN", "")


def _signer(uri: str) -> Any:
    """Nothing is asked of its service yet. Raises request.invalid_parameter."""
    scheme, name, options = parts_of(uri)
    if scheme == "awskms":
        return KmsSigner(name, _kms(options))
    if scheme == "vault":
        key, _, version = name.partition("/")
        if not key or not version.isdecimal():
            raise _refused(uri, "name the key and its version: vault:NAME/1")
        return VaultSigner(key, int(version), options)
    try:
        return GoogleSigner(name, options) if scheme == "gcpkms" else AzureKeySigner(name, options)
    except HeadwayError as error:
        raise _refused(uri, error.message) from None


def _public_of(uri: str) -> ec.EllipticCurvePublicKey:
    signer = _signer(uri)
    try:
        if isinstance(signer, KmsSigner):
            der = signer.client.get_public_key(KeyId=signer.aws_key_id)["PublicKey"]
            pem = public_pem(serialization.load_der_public_key(der))  # type: ignore[arg-type]
        else:
            pem = signer.public_pem()
        return parse_public(pem, name="the service's key")
    except HeadwayError as error:
        raise _refused(uri, error.message) from error
    except Exception as error:
        raise _refused(uri, f"the service did not give its public key: {why(error)}") from error


def _kms(options: dict[str, str]) -> Any:
    import boto3

    session = boto3.Session(botocore_session=profile_of(options), region_name=options.get("region"))
    return session.client("kms", endpoint_url=options.get("endpoint"))


def profile_of(options: dict[str, str]) -> Any:
    """The stack's roles have no AWS files of their own (`AWS_CONFIG_FILE=/dev/null`): the object store needs none."""
    from botocore.session import Session

    found, file = Session(), options.get("credentials_file")
    if file or options.get("profile"):
        found.set_config_variable("profile", options.get("profile", "default"))
        for name, variable, usual in AWS_FILES:
            of_the_caller = os.environ.get(variable, os.devnull)
            found.set_config_variable(name, file or (usual if of_the_caller == os.devnull else of_the_caller))
    return found


def parts_of(uri: str) -> tuple[str, str, dict[str, str]]:
    scheme, _, rest = uri.partition(":")
    if scheme not in OPTIONS:
        raise _refused(uri, f"it is none of {', '.join(OPTIONS)}")
    name, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(set(options) - OPTIONS[scheme]):
        raise _refused(uri, f"it has no option {', '.join(unknown)}")
    for address in (options.get("endpoint"), options.get("address")):
        if address and (urlsplit(address).scheme not in ("http", "https") or "@" in urlsplit(address).netloc):
            raise _refused(uri, "an address begins with http:// or https:// and has no credential in it")
    return scheme, name, options


def _refused(uri: str, why: str) -> HeadwayError:
    named = uri.partition("?")[0][:200]
    return HeadwayError("request.invalid_parameter", f"The key {named} cannot be taken: {why}", param="kms")
