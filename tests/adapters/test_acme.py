"""Certificates on demand from a real ACME authority: Debian's `pebble`, which asks back at Caddy."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509

from adapters.router.caddy import Tls, rendered
from adapters.router.handshake import Handshake
from tests.adapters.dns_server import DnsServer
from tests.adapters.sites import Machine, free_port, program
from tests.adapters.test_webhooks import certify

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("pebble") is None, reason="pebble is not installed (Debian's package `pebble`)"),
]
NAME = "www.acme.test"


@dataclass
class Ask:
    """Whom Caddy asks: yes to `served` alone."""

    served: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def asking() -> Iterator[Ask]:
    ask = Ask()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = parse_qs(urlsplit(self.path).query)["domain"][0]
            ask.asked.append(name)
            self.send_response(200 if name in ask.served else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    ask.url = f"http://127.0.0.1:{server.server_address[1]}/tls/ask"
    try:
        yield ask
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def running(command: list[str], log: Path, good: Callable[[], bool], **options: object) -> Iterator[None]:
    with open(log, "ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, **options)  # type: ignore[call-overload]
    try:
        end = time.monotonic() + 60
        while not good():
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < end, log.read_text()[-2000:]
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(20)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_name_that_is_served_gets_a_certificate_and_a_strangers_name_none(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "host")
    _, env_id = machine.site({"index.html": b"by tls"})
    machine.host.route(env_id, [NAME])
    plain, secure, directory, management = (free_port() for _ in range(4))
    certificate, key = certify(tmp_path, "localhost")
    config = {
        "listenAddress": f"127.0.0.1:{directory}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(certificate),
        "privateKey": str(key),
        "httpPort": plain,
        "tlsPort": secure,
    }
    (tmp_path / "pebble.json").write_text(json.dumps({"pebble": config}))
    with DnsServer() as dns, asking() as ask:
        dns.set(NAME, "A", "127.0.0.1")
        ask.served.add(NAME)
        tls = Tls(f"127.0.0.1:{secure}", ask.url, f"https://localhost:{directory}/dir", "a@acme.test", certificate)
        (tmp_path / "caddy.json").write_bytes(
            rendered(
                routes=machine.host.folders.routes,
                listen=f"127.0.0.1:{plain}",
                rules_socket=tmp_path / "rules.sock",
                plain_socket=tmp_path / "plain.sock",
                state=tmp_path / "caddy",
                logged="all",
                tls=tls,
            )
        )
        pebble = ["pebble", "-config", str(tmp_path / "pebble.json"), "-dnsserver", dns.place]
        caddy = [program("caddy"), "run", "--config", str(tmp_path / "caddy.json")]
        home = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
        # No pause before it checks, and no nonces that it refuses for the fun of it.
        quick = {**home, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
        with (
            running(pebble, tmp_path / "pebble.log", lambda: listens(directory), env=quick),
            running(caddy, tmp_path / "caddy.log", lambda: listens(secure), env=home, cwd=machine.host.folders.root),
        ):
            moved = http.client.HTTPConnection("127.0.0.1", plain, timeout=10)
            moved.request("GET", "/a?b=c", headers={"Host": NAME})
            answer = moved.getresponse()
            assert (answer.status, answer.headers["Location"]) == (308, f"https://{NAME}:{secure}/a?b=c")
            moved.close()

            assert Handshake(secure).certified(NAME), (tmp_path / "caddy.log").read_text()[-3000:]
            assert not Handshake(secure, seconds=10).certified("www.stranger.test")
            assert set(ask.asked) == {NAME, "www.stranger.test"}

            issuer, body = fetch(secure, management, certificate)
            assert "Pebble" in issuer
            assert body == b"by tls"
    line = (tmp_path / "caddy" / "access.log").read_text().splitlines()[-1]
    assert json.loads(line)["request"]["host"] == f"{NAME}:{secure}"


def fetch(secure: int, management: int, trusted: Path) -> tuple[str, bytes]:
    """The page, over a connection that the authority's root vouches for; who issued the certificate."""
    context = ssl.create_default_context(cafile=str(trusted))
    root = http.client.HTTPSConnection("localhost", management, context=context, timeout=10)
    root.request("GET", "/roots/0")
    pem = root.getresponse().read().decode()
    root.close()
    checked = ssl.create_default_context(cadata=pem)
    with (
        socket.create_connection(("127.0.0.1", secure), timeout=10) as raw,
        checked.wrap_socket(raw, server_hostname=NAME) as line,
    ):
        shown = line.getpeercert(binary_form=True)
        assert shown is not None
        line.sendall(f"GET / HTTP/1.1\r\nHost: {NAME}:{secure}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while chunk := line.recv(65536):
            answer += chunk
    return x509.load_der_x509_certificate(shown).issuer.rfc4514_string(), answer.partition(b"\r\n\r\n")[2]
