"""Doubles of Google Cloud KMS and of Azure Key Vault, behind the vendors' own host names.

Their clients know no other address. So the double is an HTTPS proxy that ends every tunnel itself, with a certificate
of an authority that the clients are told of: what they send is what they send to the real hosts, over TLS on loopback.
"""

from __future__ import annotations

import base64
import datetime
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature

from adapters.signer.keys import public_pem

Json = dict[str, Any]
Answer = tuple[int, Json, dict[str, str]]
GOOGLE = "cloudkms.googleapis.com"
AZURE = "shop.vault.azure.net"
LOGIN = "login.microsoftonline.com"
GOOGLE_KEY = "projects/p/locations/eu/keyRings/r/cryptoKeys/deploy/cryptoKeyVersions/3"
AZURE_VERSION = "0123456789abcdef0123456789abcdef"
TENANT, CLIENT, SECRET = "11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000", "s3cret-word"


def unpadded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def padded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Clouds:
    """`refuses` is a status that every call for a signature gets; `asked` are `(host, method, path)`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.private: Any = ec.generate_private_key(ec.SECP256R1())
        self.account = rsa.generate_private_key(65537, 2048)
        self.refuses: int | None = None
        self.asked: list[tuple[str, str, str]] = []
        self.certificate = certify(folder, GOOGLE, AZURE, LOGIN)
        (folder / "google.json").write_text(json.dumps(self._service_account()))
        (folder / "azure.secret").write_text(SECRET + "\n")

    def _service_account(self) -> Json:
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return {
            "type": "service_account",
            "project_id": "p",
            "private_key_id": "1",
            "private_key": self.account.private_bytes(*form).decode(),
            "client_email": "deploy@p.iam.gserviceaccount.com",
            "client_id": "1",
            "token_uri": "https://oauth2.googleapis.com/token",
        }

    @property
    def google(self) -> str:
        return f"gcpkms:{GOOGLE_KEY}?credentials_file={self.folder}/google.json"

    @property
    def azure(self) -> str:
        who = f"tenant={TENANT}&client={CLIENT}&secret_file={self.folder}/azure.secret"
        return f"azurekms://{AZURE}/keys/deploy/{AZURE_VERSION}?{who}"

    def answer(self, host: str, method: str, path: str, bearer: str, body: bytes) -> Answer:
        self.asked.append((host, method, path))
        if host == GOOGLE:
            return self._google(method, path, bearer, body)
        return self._azure(method, path, bearer, body) if host == AZURE else self._login(path, body)

    def _google(self, method: str, path: str, bearer: str, body: bytes) -> Answer:
        """The caller signs each call with the key of its service account."""
        signed, _, signature = bearer.rpartition(".")
        self.account.public_key().verify(padded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        if (method, path) == ("GET", f"/v1/{GOOGLE_KEY}/publicKey"):
            pem = public_pem(self.private.public_key()).decode()
            return 200, {"name": GOOGLE_KEY, "pem": pem, "algorithm": 12}, {}
        if (method, path) == ("POST", f"/v1/{GOOGLE_KEY}:asymmetricSign"):
            if self.refuses is not None:
                return self.refuses, {"error": {"code": self.refuses, "message": "no", "status": "X"}}, {}
            digest = base64.b64decode(json.loads(body)["digest"]["sha256"])
            made = self.private.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256())))
            return 200, {"name": GOOGLE_KEY, "signature": base64.b64encode(made).decode()}, {}
        return 404, {"error": {"code": 404, "message": "no such key", "status": "NOT_FOUND"}}, {}

    def _azure(self, method: str, path: str, bearer: str, body: bytes) -> Answer:
        if bearer != "azure-token":
            asked = f'Bearer authorization="https://{LOGIN}/{TENANT}", resource="https://vault.azure.net"'
            return 401, {"error": {"code": "Unauthorized", "message": "no token"}}, {"WWW-Authenticate": asked}
        kid = f"https://{AZURE}/keys/deploy/{AZURE_VERSION}"
        if (method, path) == ("GET", f"/keys/deploy/{AZURE_VERSION}"):
            numbers = self.private.public_key().public_numbers()
            size = (numbers.curve.key_size + 7) // 8
            x, y = (unpadded(number.to_bytes(size, "big")) for number in (numbers.x, numbers.y))
            curve = {"secp256r1": "P-256", "secp384r1": "P-384"}[numbers.curve.name]
            key = {"kid": kid, "kty": "EC", "crv": curve, "x": x, "y": y, "key_ops": ["sign", "verify"]}
            return 200, {"key": key, "attributes": {"enabled": True}}, {}
        if (method, path) == ("POST", f"/keys/deploy/{AZURE_VERSION}/sign"):
            if self.refuses is not None:
                return self.refuses, {"error": {"code": "Forbidden", "message": "no"}}, {}
            asked = json.loads(body)
            assert asked["alg"] == "ES256"
            made = self.private.sign(padded(asked["value"]), ec.ECDSA(Prehashed(hashes.SHA256())))
            raw = b"".join(number.to_bytes(32, "big") for number in decode_dss_signature(made))
            return 200, {"kid": kid, "value": unpadded(raw)}, {}
        return 404, {"error": {"code": "KeyNotFound", "message": "no such key"}}, {}

    def _login(self, path: str, body: bytes) -> Answer:
        base = f"https://{LOGIN}/{TENANT}"
        if path == f"/{TENANT}/v2.0/.well-known/openid-configuration":
            found = {
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
            }
            return 200, found, {}
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if path == f"/{TENANT}/oauth2/v2.0/token" and (form["client_id"], form["client_secret"]) == (CLIENT, SECRET):
            return 200, {"token_type": "Bearer", "expires_in": 3600, "access_token": "azure-token"}, {}
        return 401, {"error": "invalid_client", "error_description": f"wrong secret {form.get('client_secret')}"}, {}


@contextmanager
def serving(clouds: Clouds) -> Iterator[str]:
    """The address of the proxy."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(clouds.certificate, clouds.folder / "cloud.key")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_CONNECT(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.connection = context.wrap_socket(self.connection, server_side=True)
            self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)  # type: ignore
            self.close_connection = False

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            bearer = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            host = (self.headers.get("Host") or "").partition(":")[0]
            path = urlsplit(self.path).path
            status, found, headers = clouds.answer(host, self.command, path, bearer, body)
            sent = json.dumps(found).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Type": "application/json", "Content-Length": len(sent)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = _serve

        def finish(self) -> None:
            super().finish()
            self.connection.close()

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A client that hung up."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def certify(folder: Path, *names: str) -> Path:
    """`cloud.pem`, which is its own authority, and `cloud.key`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "clouds")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "cloud.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "cloud.key").write_bytes(key.private_bytes(*form))
    return folder / "cloud.pem"
