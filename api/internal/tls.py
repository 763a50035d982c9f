"""The broker's door for other machines: TLS under an authority of its own, which nothing else in the world vouches for.

`broker-authority.pem` among the credentials of the roles holds its key and certificate; hosts and builders pin the
certificate alone. What the door shows is made anew at each start, under one fixed name: that the authority signed it
says all. Whoever asks proves himself by his credential, before anything else of his question is read.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import anyio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.bootstrap import write_secret
from api.internal.door import refuse
from api.internal.doorkeeper import Doorkeeper, Shown
from headway.broker import TLS_NAME
from headway.errors import HeadwayError

FILE: Final = "broker-authority.pem"
YEARS, SHOWN_DAYS, SLACK = 20, 800, timedelta(hours=1)


def authority(folder: Path, now: datetime | None = None) -> str:
    """Its certificate (PEM), made with its key where there is none. Raises stack.folder_invalid."""
    path = folder / FILE
    if not path.exists():
        key, at = ec.generate_private_key(ec.SECP256R1()), now or datetime.now(UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Headway broker authority")])
        made = (
            _certificate(name, name, key, at - SLACK, at + timedelta(days=365 * YEARS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .sign(key, SHA256())
        )
        # Replicas agree: the first one's stays.
        write_secret(path, _pem(key) + made.public_bytes(Encoding.PEM).decode())
    return _opened(path)[1].public_bytes(Encoding.PEM).decode()


def context(folder: Path, now: datetime | None = None) -> ssl.SSLContext:
    """What the door shows, signed by the authority of the folder. Raises stack.folder_invalid."""
    key, vouching = _opened(folder / FILE)
    own, at = ec.generate_private_key(ec.SECP256R1()), now or datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, TLS_NAME)])
    shown = (
        _certificate(name, vouching.subject, own, at - SLACK, at + timedelta(days=SHOWN_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(TLS_NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    with tempfile.NamedTemporaryFile("w", dir=folder if os.access(folder, os.W_OK) else None) as file:
        file.write(_pem(own) + shown.public_bytes(Encoding.PEM).decode())
        file.flush()
        made.load_cert_chain(file.name)
    return made


class Admitted:
    """Refuses whoever has no credential of this door before his question is read."""

    def __init__(self, app: ASGIApp, doorkeeper: Doorkeeper) -> None:
        self._app = app
        self._doorkeeper = doorkeeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            try:
                await anyio.to_thread.run_sync(self._doorkeeper.admit, Shown.of(request.headers), None)
            except HeadwayError as error:
                return await refuse(request, error)(scope, receive, send)
        return await self._app(scope, receive, send)


def _opened(path: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    try:
        text = path.read_bytes()
        key = load_pem_private_key(text, None)
        certificate = x509.load_pem_x509_certificate(text)
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is no key and certificate"
        raise HeadwayError("stack.folder_invalid", f"{path} cannot be used: {said}.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise HeadwayError("stack.folder_invalid", f"{path} cannot be used: it is another kind of key.")
    return key, certificate


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, since: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
