"""What goes out: signatures by the contract's vector, targets that are refused, one try against real servers."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import hmac
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from miosa.resources.webhooks import verify_signature

from adapters.webhooks.sending import Outcome, Sender
from adapters.webhooks.signing import headers_of, timed
from adapters.webhooks.targets import Targets, check_headers
from headway.errors import HeadwayError
from tests.adapters.receiver import Receiver


async def everything_is_here(_host: str, _port: int) -> list[str]:
    return ["127.0.0.1"]


async def nothing_is_anywhere(host: str, _port: int) -> list[str]:
    raise socket.gaierror(socket.EAI_NONAME, f"{host} is not known")


OPEN = Targets(["127.0.0.1", "hook.test", "other.test"], everything_is_here)
BODY = b'{"id":"evt_01KVVKG000TEST","type":"build.succeeded"}'


def send(url: str, targets: Targets = OPEN, seconds: float = 5.0, headers: dict[str, str] | None = None) -> Outcome:
    return asyncio.run(Sender(targets, seconds).send(url, BODY, headers or {}))


def test_the_contracts_own_vector() -> None:
    expected = "a123c5a2886149bf4ee8b1588036e7fddc2bbc92a08a48853a550aaf87a0652a"
    assert timed(["whsec_test_0123456789abcdef"], BODY, 1782192302) == f"t=1782192302,v1={expected}"


def test_both_secrets_sign_while_one_replaces_the_other() -> None:
    signed = dict(part.split("=", 1) for part in timed(["new", "old"], BODY, 7).split(",")[:1])
    assert signed == {"t": "7"}
    for secret, given in zip(("new", "old"), timed(["new", "old"], BODY, 7).split(",v1=")[1:], strict=True):
        assert given == hmac.new(secret.encode(), b"7." + BODY, hashlib.sha256).hexdigest()


def test_the_other_dialects_client_verifies_both_of_its_headers() -> None:
    now = int(time.time())
    made = headers_of("miosa", ["whsec_a", "whsec_b"], BODY, now, event="x", event_id="evt_1", delivery_id="del_1")
    for name in ("Miosa-Signature", "X-MIOSA-Signature"):
        assert verify_signature(BODY, made[name], "whsec_a")
        assert not verify_signature(BODY + b" ", made[name], "whsec_a")
        assert not verify_signature(BODY, made[name], "whsec_b")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "ftp://example.com/",
        "https://10.0.0.7/",
        "https://127.0.0.1:8443/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://localhost/",
        "https://user:word@example.com/",
        "https://example.com/#part",
        "https://example.com/a b",
        "https://exa\u043cple.com/",
        "https:///nothing",
        "https://example.com:99999/",
        "https://*.example.com/",
        "nonsense",
        "https://" + "a" * 2000,
    ],
)
def test_targets_that_are_refused_at_once(url: str) -> None:
    with pytest.raises(HeadwayError) as refused:
        Targets().check(url)
    assert refused.value.code == "webhook_endpoint.url_refused"
    assert refused.value.param == "url"


def test_what_the_operator_names_may_be_private_and_plain() -> None:
    for url in ("http://127.0.0.1:1/x", "https://hook.test/", "http://hook.test:2/"):
        assert OPEN.check(url) == url
    assert Targets().check("https://example.com/hook?a=1") == "https://example.com/hook?a=1"


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "x"},
        {"Content-Length": "1"},
        {"Forge-Signature": "x"},
        {"x-miosa-signature": "x"},
        {"Transfer-Encoding": "chunked"},
        {"A B": "x"},
        {"A": "x\r\nHost: y"},
        {"A": "\u20ac"},
        {"A": "1", "a": "2"},
        {f"A{n}": "x" for n in range(11)},
    ],
)
def test_headers_that_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(HeadwayError) as refused:
        check_headers(headers)
    assert refused.value.param == "headers"


def test_a_delivery_arrives_with_its_bytes_and_its_headers() -> None:
    with Receiver() as receiver:
        outcome = send(receiver.url, headers={"Authorization": "Bearer mine", "Forge-Delivery": "del_1"})
    assert (outcome.status, outcome.error) == (200, None)
    [got] = receiver.got
    assert got.body == BODY
    assert got.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert got.headers["authorization"] == "Bearer mine"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["forge-delivery"] == "del_1"


def test_a_name_that_leads_to_a_private_address_is_refused_at_the_try() -> None:
    with Receiver() as receiver:
        targets = Targets((), everything_is_here)
        url = f"https://hook.test:{receiver.port}/"
        assert targets.check(url) == url
        outcome = send(url, targets)
        assert outcome.error == "hook.test leads to no public address"
        assert receiver.got == []


def test_a_redirect_is_not_followed() -> None:
    with Receiver() as other, Receiver([302], location=other.url) as receiver:
        outcome = send(receiver.url)
        assert outcome.status == 302
        assert outcome.error is not None
        assert "redirects are not followed" in outcome.error
        assert other.got == []


def test_failures_are_told_in_words() -> None:
    with Receiver([500]) as receiver:
        assert send(receiver.url).error == "answered 500"
        free = receiver.port
    assert send(f"http://127.0.0.1:{free}/").error == "could not connect: no connection"
    unknown = send("http://nothing.test/", Targets(["nothing.test"], nothing_is_anywhere)).error
    assert unknown is not None
    assert "cannot be resolved" in unknown


def test_names_that_nobody_answers_for_keep_nothing_else_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def silent(host: str, *_args: object, **_named: object) -> list[object]:
        release.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, f"{host} is not answered for")

    async def all_at_once() -> None:
        sender = Sender(Targets(), 0.2)
        given_up = [asyncio.create_task(sender.send(f"https://a{n}.silent.test/", BODY, {})) for n in range(64)]
        try:
            assert {(await one).error for one in given_up} == {"no answer within 0.2 s"}
            assert await asyncio.wait_for(asyncio.to_thread(lambda: "a row"), 20) == "a row"
        finally:
            release.set()

    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", silent)
        asyncio.run(all_at_once())


def test_a_receiver_that_does_not_answer_is_left_in_time() -> None:
    release = threading.Event()

    def late() -> int:
        release.wait(30)
        return 200

    with Receiver([late]) as receiver:
        outcome = send(receiver.url, seconds=0.3)
        release.set()
    assert outcome.status is None
    assert outcome.error == "no answer within 0.3 s"


def test_tls_is_checked_against_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection goes to the address that was looked at, and the certificate has to be the name's."""
    certificate, key = certify(tmp_path, "hook.test")
    with Receiver() as receiver:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        receiver._server.socket = context.wrap_socket(receiver._server.socket, server_side=True)
        url = f"https://hook.test:{receiver.port}/hook"
        assert send(url).error == "could not connect: its certificate is not trusted"
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert send(url).error is None
        assert receiver.got[0].headers["host"] == f"hook.test:{receiver.port}"
        other = f"https://other.test:{receiver.port}/hook"
        assert send(other).error == "could not connect: its certificate is not trusted"


def certify(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate of its own for a name, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, plain))
    return folder / "cert.pem", folder / "key.pem"
