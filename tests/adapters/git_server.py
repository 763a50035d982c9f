"""A git server for tests: `git http-backend` behind TLS on 127.0.0.2, with an authority of its own."""

from __future__ import annotations

import base64
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.adapters.repositories import QUIET

ADDRESS = "127.0.0.2"


class Handler(BaseHTTPRequestHandler):
    """Below /moved everything is a redirect, below /plain the repositories are plain files, below /private Basic
    credentials are wanted: those of `accounts`, which may change. `asked` are the credentials that came in.
    """

    root: Path
    accounts: dict[str, str]
    asked: list[str]

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        if parts.path.startswith("/private/"):
            self._private(parts.path.removeprefix("/private"), parts.query)
        elif parts.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved"))
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif parts.path.startswith("/plain/"):
            self._send_file(self.root / parts.path.removeprefix("/plain/"))
        else:
            self._backend(parts.path, parts.query)

    do_GET = do_POST = _serve

    def _private(self, path: str, query: str) -> None:
        kind, _, given = self.headers.get("authorization", "").partition(" ")
        user, _, password = base64.b64decode(given).decode().partition(":") if kind == "Basic" else ("", "", "")
        if kind:
            self.asked.append(f"{user}:{password}")
        if kind and self.accounts.get(user) == password:
            return self._backend(path, query)
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="private"')
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def _send_file(self, path: Path) -> None:
        body = path.read_bytes() if path.is_file() else b""
        self.send_response(200 if path.is_file() else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _backend(self, path: str, query: str) -> None:
        env = {
            **QUIET,
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("content-type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }
        sent = self.rfile.read(int(self.headers.get("content-length") or 0))
        done = subprocess.run(["git", "http-backend"], env=env, input=sent, capture_output=True, check=False)
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        self.send_response(int(fields.pop("Status", "200 OK").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(
    root: Path, folder: Path, accounts: dict[str, str] | None = None, asked: list[str] | None = None
) -> Iterator[tuple[int, Path]]:
    """Serve the repositories below `root`; the port, and the authority's certificate (written into `folder`)."""
    authority, pair = _certificates(folder)
    own = {"root": root, "accounts": {} if accounts is None else accounts, "asked": [] if asked is None else asked}
    handler = type("Here", (Handler,), own)
    server = ThreadingHTTPServer((ADDRESS, 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1], authority
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _certificates(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(ADDRESS))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    authority, pair = folder / "authority.pem", folder / "pair.pem"
    pem = made.public_bytes(serialization.Encoding.PEM)
    authority.write_bytes(pem)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pair.write_bytes(private + pem)
    return authority, pair


def has_backend() -> bool:
    """Whether git can serve over HTTP here."""
    git = shutil.which("git")
    where = subprocess.run([git or "false", "--exec-path"], capture_output=True, text=True, check=False).stdout.strip()
    return os.access(Path(where or "/none") / "git-http-backend", os.X_OK)
