"""Keys that stay in their service, over real HTTP: AWS KMS by moto's server, Vault's transit engine by a double."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from moto.server import ThreadedMotoServer

from adapters.signer.bundle import Policy, attest, check
from adapters.signer.folder import KeyFolder
from adapters.signer.keys import public_pem
from adapters.signer.remote import parts_of, profile_of
from adapters.signer.statement import BuildFacts, statement
from headway.errors import HeadwayError

NOW = datetime(2026, 7, 1, tzinfo=UTC)
FACTS = BuildFacts("site_1", "env_1", "build_1", "d" * 64, "https://git.example.test/a.git", "main", "1" * 40, "2" * 64)


def signed_and_believed(folder: Path, uri: str) -> None:
    """Rotated to, used, and loaded again by another process; what the old key signed is still believed."""
    keys = KeyFolder(folder)
    old = attest(statement(FACTS), keys.current())
    made = keys.rotate(NOW, remote=uri)
    assert made.record.state == "current"
    again = KeyFolder(folder)
    assert again.current().hint == made.record.hint
    for bundle in (attest(statement(FACTS), again.current()), old):
        check(bundle, "d" * 64, again.ring(), Policy("site_1"), now=NOW)
    assert not (folder / f"{made.name}.pem").exists()
    assert (folder / f"{made.name}.uri").read_text() == uri
    with pytest.raises(HeadwayError, match="already"):
        again.rotate(NOW, remote=uri)
    assert sorted(path.suffix for path in folder.glob("signing-3*")) == []
    assert len(again.kept()) == 2


# AWS


def of_digest(self: Any, message: bytes, signing_algorithm: str) -> bytes:
    """As the service does with MessageType=DIGEST, which moto takes for a message."""
    assert (signing_algorithm, len(message)) == ("ECDSA_SHA_256", 32)
    made = self.private_key.sign(message, ec.ECDSA(Prehashed(hashes.SHA256())))
    return bytes(made)


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moto.kms.utils.ECDSAPrivateKey.sign", of_digest)
        yield from moto_server()


def moto_server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A profile of its own, beside the object store's credentials in the environment."""
    (tmp_path / "aws").write_text("[kms]\naws_access_key_id = signer\naws_secret_access_key = s3cret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the object store's")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the object store's")
    return "kms"


def kms_key(aws: str, spec: str = "ECC_NIST_P256") -> str:
    client = boto3.client(
        "kms", endpoint_url=aws, region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    return str(client.create_key(KeyUsage="SIGN_VERIFY", KeySpec=spec)["KeyMetadata"]["KeyId"])


def test_a_key_of_aws(aws: str, profile: str, tmp_path: Path) -> None:
    uri = f"awskms:{kms_key(aws)}?region=eu-central-1&profile={profile}&endpoint={aws}"
    signed_and_believed(tmp_path / "keys", uri)


def signed_by(uri: str) -> str:
    """The access key that the service is asked with."""
    credentials = profile_of(parts_of(uri)[2]).get_credentials()
    return str(credentials.access_key)


def test_a_profile_is_found_where_the_stack_has_hidden_the_callers(
    profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    assert signed_by(f"awskms:alias/deploy?profile={profile}&credentials_file={tmp_path}/aws") == "signer"
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    (tmp_path / "aws").rename(tmp_path / ".aws" / "credentials")
    assert signed_by(f"awskms:alias/deploy?profile={profile}") == "signer"
    assert signed_by("awskms:alias/deploy") == "the object store's"


@pytest.mark.slow
def test_no_other_kind_of_key_and_no_key_at_all(aws: str, profile: str, tmp_path: Path) -> None:
    keys = KeyFolder(tmp_path / "keys")
    first = keys.current().hint
    options = f"region=eu-central-1&profile={profile}&endpoint={aws}"
    for name in (kms_key(aws, "RSA_2048"), kms_key(aws, "ECC_NIST_P384"), "alias/nothing"):
        with pytest.raises(HeadwayError) as refused:
            keys.rotate(NOW, remote=f"awskms:{name}?{options}")
        assert refused.value.code == "request.invalid_parameter"
    assert KeyFolder(tmp_path / "keys").current().hint == first


@pytest.mark.slow
def test_a_service_that_is_away_is_a_signature_to_try_again(profile: str, aws: str, tmp_path: Path) -> None:
    keys = KeyFolder(tmp_path / "keys")
    made = keys.rotate(NOW, remote=f"awskms:{kms_key(aws)}?region=eu-central-1&profile={profile}&endpoint={aws}")
    uri = tmp_path / "keys" / f"{made.name}.uri"
    uri.write_text(uri.read_text().replace(aws, "http://127.0.0.1:9"))
    monkey = KeyFolder(tmp_path / "keys").current()
    monkey.signer.client.meta.config.retries = {"total_max_attempts": 1}
    with pytest.raises(HeadwayError) as failed:
        attest(statement(FACTS), monkey)
    assert (failed.value.code, failed.value.retryable) == ("sign.failed", True)


# Vault


class Vault:
    """The two calls of the transit engine that are made of it, and its ways to refuse."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.kind = "ecdsa-p256"
        self.token = "t0ken"
        self.asked: list[tuple[str, str]] = []

    def answer(self, method: str, path: str, token: str | None, body: Any) -> tuple[int, Any]:
        self.asked.append((method, path))
        if token != self.token:
            return 403, {"errors": ["permission denied"]}
        if (method, path) == ("GET", "/v1/transit/keys/deploy"):
            pem = public_pem(self.private.public_key()).decode()
            return 200, {"data": {"type": self.kind, "latest_version": 2, "keys": {"2": {"public_key": pem}}}}
        if (method, path) == ("POST", "/v1/transit/sign/deploy/sha2-256"):
            assert (body["marshaling_algorithm"], body["key_version"]) == ("asn1", 2)
            made = self.private.sign(base64.b64decode(body["input"]), ec.ECDSA(hashes.SHA256()))
            return 200, {"data": {"signature": f"vault:v2:{base64.b64encode(made).decode()}"}}
        return 404, {"errors": []}


@pytest.fixture
def vault() -> Iterator[tuple[Vault, str]]:
    double = Vault()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            token = self.headers.get("X-Vault-Token")
            status, body = double.answer(self.command, self.path, token, json.loads(raw) if raw else None)
            sent = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = _serve

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield double, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_key_of_vault(vault: tuple[Vault, str], tmp_path: Path) -> None:
    double, address = vault
    (tmp_path / "token").write_text("t0ken\n")
    uri = f"vault:deploy/2?address={address}&token_file={tmp_path}/token"
    signed_and_believed(tmp_path / "keys", uri)
    assert "t0ken" not in (tmp_path / "keys" / "signing-2.uri").read_text()
    # The token is renewed: it is read for each signature.
    double.token = "another"
    key = KeyFolder(tmp_path / "keys").current()
    with pytest.raises(HeadwayError, match="signer failed"):
        key.raw(b"x")
    (tmp_path / "token").write_text("another")
    assert key.raw(b"x")


def test_vault_without_the_key_or_with_one_of_another_kind(vault: tuple[Vault, str], tmp_path: Path) -> None:
    double, address = vault
    (tmp_path / "token").write_text("t0ken")
    keys = KeyFolder(tmp_path / "keys")
    options = f"address={address}&token_file={tmp_path}/token"
    double.kind = "ed25519"
    for name in ("deploy/2", "deploy/3", "nothing/1", "deploy", "deploy/latest"):
        with pytest.raises(HeadwayError) as refused:
            keys.rotate(NOW, remote=f"vault:{name}?{options}")
        assert refused.value.code == "request.invalid_parameter"
    assert len(keys.kept()) == 1


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "awskms:key?secret=x",
        "vault:deploy/1?token=t0ken",
        "vault:deploy/1?address=ftp://vault.example.org",
        "vault:deploy/1?address=https://user:word@vault.example.org",
    ],
)
def test_what_is_no_key_of_a_service(uri: str, tmp_path: Path) -> None:
    with pytest.raises(HeadwayError) as refused:
        KeyFolder(tmp_path / "keys").rotate(NOW, remote=uri)
    assert refused.value.code == "request.invalid_parameter"
    assert "word" not in refused.value.message
