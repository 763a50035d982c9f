"""The proxy against real servers on loopback, alone and as the only door of a real sandbox."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import socketserver
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from adapters.egress import EgressPolicy, EgressProxy, package_indexes
from adapters.sandbox import Command, Limits, Mount, Outcome, Sandbox, capabilities

MIB = 1 << 20
sandboxed = pytest.mark.skipif(not capabilities().ok, reason="no sandbox here")


class Echo(socketserver.BaseRequestHandler):
    """Answers what it hears, and says goodbye at the end of the input."""

    def handle(self) -> None:
        self.request.sendall(b"hello ")
        while data := self.request.recv(1 << 16):
            self.request.sendall(data)
        self.request.sendall(b" goodbye")


class Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"path {self.path} proxy-header {self.headers.get('Proxy-Connection')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def echo() -> Iterator[int]:
    with serving(Server(("127.0.0.1", 0), Echo)) as port:
        yield port


@contextmanager
def proxied(policy: EgressPolicy) -> Iterator[tuple[EgressProxy, int]]:
    listener = socket.create_server(("127.0.0.1", 0))
    proxy = EgressProxy(policy)
    proxy.start(listener)
    try:
        yield proxy, listener.getsockname()[1]
    finally:
        proxy.stop()


def talk(port: int, *pieces: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        answer = b""
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.01)
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(1 << 16):
                answer += data
        except ConnectionError:
            pass  # what was refused may be cut off
        return answer


def connect(host: str, port: int) -> bytes:
    return f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()


def test_an_allowed_name_is_tunnelled_both_ways_to_the_end(echo: int) -> None:
    with proxied(EgressPolicy.of([f"localhost:{echo}"], private_ok=["localhost"])) as (proxy, port):
        answer = talk(port, connect("LocalHost", echo), b"ping")
        assert answer == b"HTTP/1.1 200 Connection established\r\n\r\nhello ping goodbye"
        assert proxy.denied == ()


class Impatient(socketserver.BaseRequestHandler):
    """Resets a connection on which nobody has said a word after a moment, as large sites do after ten seconds."""

    calls = 0
    hung_up = threading.Event()

    def handle(self) -> None:
        type(self).calls += 1
        self.request.settimeout(0.05 if self.calls == 1 else 10)
        try:
            word = self.request.recv(1 << 16)
        except TimeoutError:
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.request.close()
            self.hung_up.set()
        else:
            self.request.sendall(b"heard " + word)


def test_an_origin_that_hung_up_before_a_slow_client_said_a_word_is_called_again() -> None:
    """A build on a full machine comes to its first word late, and package managers give up after a few resets."""
    with serving(Server(("127.0.0.1", 0), Impatient)) as origin:
        policy = EgressPolicy.of([f"localhost:{origin}"], private_ok=["localhost"])
        with proxied(policy) as (_, port), socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(connect("localhost", origin))
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
            assert Impatient.hung_up.wait(10)
            time.sleep(0.05)
            client.sendall(b"at last")
            assert client.recv(1 << 16) == b"heard at last"
            assert client.recv(1 << 16) == b""
    assert Impatient.calls == 2


def test_refusals_say_why_and_are_noted_once(echo: int) -> None:
    policy = EgressPolicy.of([f"localhost:{echo}", f"127.0.0.1:{echo}"])
    with proxied(policy) as (proxy, port):
        for _ in range(2):
            assert talk(port, connect("localhost", echo)).startswith(b"HTTP/1.1 403 ")
        assert b"not public" in talk(port, connect("127.0.0.1", echo))
        assert b"not on the allowlist" in talk(port, connect("elsewhere.test", 443))
        assert b"port 1 is not allowed" in talk(port, connect("localhost", 1))
        assert talk(port, b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 403 ")
        assert b"'GET http://a\\x00.test/ HTTP/1.1'" in talk(port, b"GET http://a\0.test/ HTTP/1.1\r\n\r\n")
        assert proxy.denied[:4] == (f"localhost:{echo}", f"127.0.0.1:{echo}", "elsewhere.test:443", "localhost:1")
        lines = proxy.notices()
        assert lines[0] == f"egress: refused localhost:{echo} (resolves to an address that is not public)"
        assert len(lines) == 6
        assert not any("\0" in line for line in lines)
        assert proxy.notices() == []


def test_what_does_not_answer_is_no_refusal() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        dead = free.getsockname()[1]
    policy = EgressPolicy.of([f"127.0.0.1:{dead}", "no-such-name.invalid"], private_ok=["127.0.0.1"])
    with proxied(policy) as (proxy, port):
        assert talk(port, connect("127.0.0.1", dead)).startswith(b"HTTP/1.1 502 ")
        assert talk(port, connect("no-such-name.invalid", 443)).startswith(b"HTTP/1.1 502 ")
        assert proxy.denied == ()
        assert all(line.startswith("egress: no answer from ") for line in proxy.notices())


def test_the_name_is_resolved_once_and_the_checked_address_used(echo: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that changes its address after the check (rebinding) gains nothing."""
    asked: list[str] = []
    true = asyncio.BaseEventLoop.getaddrinfo

    async def rebinding(self: Any, host: Any, port: Any, **more: Any) -> Any:
        if host != "changing.test":
            return await true(self, host, port, **more)
        asked.append(host)
        address = "127.0.0.1" if len(asked) > 1 else "203.0.113.7"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", rebinding)
    with proxied(EgressPolicy.of([f"changing.test:{echo}"])) as (proxy, port):
        assert b"not public" in talk(port, connect("changing.test", echo))
        assert asked == ["changing.test"]
        assert b"hello" not in talk(port, connect("changing.test", echo))
        assert proxy.denied == (f"changing.test:{echo}",)


def test_plain_http_goes_through_where_its_port_is_allowed() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    policy = EgressPolicy.of([f"localhost:{server.server_port}"], private_ok=["localhost"])
    with serving(server) as site, proxied(policy) as (_, port):
        request = f"GET http://localhost:{site}/a?b HTTP/1.1\r\nHost: localhost\r\nProxy-Connection: x\r\n\r\n"
        assert talk(port, request.encode()).endswith(b"path /a?b proxy-header None")
        assert talk(port, b"GET http://127.0.0.1/ HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 403 ")


def test_the_byte_budget_ends_the_connection(echo: int) -> None:
    policy = EgressPolicy.of([f"localhost:{echo}"], private_ok=["localhost"], budget=200_000)
    with proxied(policy) as (proxy, port):
        answer = talk(port, connect("localhost", echo), *[b"x" * 60_000] * 4)
        assert len(answer) < 240_000
        assert b"byte budget spent" in talk(port, connect("localhost", echo))
        assert proxy.denied == (f"localhost:{echo}",)


def test_many_connections_at_once(echo: int) -> None:
    policy = EgressPolicy.of([f"localhost:{echo}"], private_ok=["localhost"])
    answers: list[bytes] = []
    payload = bytes(range(256)) * 2000
    with proxied(policy) as (_, port):
        threads = [
            threading.Thread(target=lambda: answers.append(talk(port, connect("localhost", echo), payload)))
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    expected = b"HTTP/1.1 200 Connection established\r\n\r\nhello " + payload + b" goodbye"
    assert answers == [expected] * 20


def test_who_waits_for_a_place_takes_no_descriptor_of_ours(echo: int) -> None:
    policy = EgressPolicy.of([f"localhost:{echo}"], private_ok=["localhost"])
    with proxied(EgressPolicy(policy.rules, policy.private_ok, connections=4)) as (_, port):
        time.sleep(0.2)
        before = len(os.listdir("/proc/self/fd"))
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
        time.sleep(0.5)
        taken = len(os.listdir("/proc/self/fd")) - before - len(idle)
        for one in idle:
            one.close()
        assert taken <= 4 + 1
        assert talk(port, connect("localhost", echo), b"x").endswith(b"hello x goodbye")


def test_stopping_ends_open_connections_and_idle_ones(echo: int) -> None:
    with proxied(EgressPolicy.of([f"localhost:{echo}"], private_ok=["localhost"])) as (proxy, port):
        idle = socket.create_connection(("127.0.0.1", port), timeout=5)
        busy = socket.create_connection(("127.0.0.1", port), timeout=5)
        busy.sendall(connect("localhost", echo))
        assert busy.recv(100).startswith(b"HTTP/1.1 200")
        started = time.monotonic()
        proxy.stop()
        assert time.monotonic() - started < 10
        for connection in (idle, busy):
            with connection:
                try:
                    while connection.recv(100):
                        pass
                except ConnectionResetError:
                    pass


# inside a sandbox


class Box:
    def __init__(self, folder: Path) -> None:
        self.sandbox = Sandbox(state=folder / "state", slots=1, ca_files=package_indexes().ca_files)
        self.heard: list[tuple[str, bytes]] = []

    def run(self, script: str, policy: EgressPolicy | None, **more: Any) -> Outcome:
        limits = Limits(wall=120, memory=2048 * MIB, pids=200, disk=1024 * MIB, log=16 * MIB)
        with self.sandbox.workspace() as workspace:
            command = Command(["bash", "-c", script], workspace, limits, egress=policy, **more)
            return self.sandbox.run(command, lambda *said: self.heard.append(said), lambda: False)

    def text(self, stream: str = "stdout") -> str:
        return b"".join(data for name, data in self.heard if name == stream).decode(errors="replace")


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


ASK = (
    "exec 3<>/dev/tcp/127.0.0.1/3128; printf 'CONNECT %s HTTP/1.1\\r\\n\\r\\n' {destination} >&3; "
    "printf ping >&3; timeout 30 head -c 49 <&3; true"
)


@sandboxed
def test_the_sandbox_reaches_what_is_allowed_and_nothing_else(box: Box, echo: int) -> None:
    policy = EgressPolicy.of([f"127.0.0.1:{echo}"], private_ok=["127.0.0.1"])
    assert box.run(ASK.format(destination=f"127.0.0.1:{echo}"), policy).ok
    assert box.text().endswith("hello ping")

    box.heard.clear()
    outcome = box.run(ASK.format(destination="elsewhere.test:443"), policy)
    assert "403 Forbidden" in box.text()
    assert outcome.denied == ("elsewhere.test:443",)
    assert box.text("system") == "egress: refused elsewhere.test:443 (not on the allowlist)\n"

    box.heard.clear()
    several = "; ".join(ASK.format(destination=name) for name in ("a.test:443", "[::1]:443"))
    assert box.run(several, policy).denied == ("a.test:443", "[::1]:443")
    # One line each.
    assert [line.split()[2] for line in box.text("system").splitlines()] == ["a.test:443", "[::1]:443"]

    box.heard.clear()
    assert box.run(f"(exec 3<>/dev/tcp/127.0.0.1/{echo}) || echo shut; cat /etc/resolv.conf", policy).ok
    assert box.text() == "shut\n"


@sandboxed
def test_without_a_policy_there_is_no_proxy(box: Box) -> None:
    assert box.run("(exec 3<>/dev/tcp/127.0.0.1/3128) || echo shut; env | grep -ci _proxy; true", None).ok
    assert box.text() == "shut\n0\n"


@sandboxed
def test_a_door_leads_to_its_host_without_a_proxy_client(box: Box, echo: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ssh and clients without proxy support use: the name stands in /etc/hosts, the port is the true one."""
    true = asyncio.BaseEventLoop.getaddrinfo

    async def named(self: Any, host: Any, port: Any, **more: Any) -> Any:
        return await true(self, "127.0.0.1" if host in ("git.test", "private.test") else host, port, **more)

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", named)
    policy = EgressPolicy.of([f"git.test:{echo}", f"private.test:{echo}"], private_ok=["git.test"])
    outcome = box.run(
        f"exec 3<>/dev/tcp/git.test/{echo}; printf ping >&3; timeout 30 head -c 10 <&3; "
        f"exec 4<>/dev/tcp/private.test/{echo}; timeout 30 cat <&4; (exec 5<>/dev/tcp/other.test/{echo}); true",
        policy,
    )
    assert outcome.ok
    assert box.text() == "hello ping"
    assert outcome.denied == (f"private.test:{echo}",)


@sandboxed
@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh client here")
def test_ssh_finds_its_host(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[bytes] = []

    class Banner(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            heard.append(self.request.recv(100))

    true = asyncio.BaseEventLoop.getaddrinfo

    async def named(self: Any, host: Any, port: Any, **more: Any) -> Any:
        return await true(self, "127.0.0.1" if host == "git.test" else host, port, **more)

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", named)
    with serving(Server(("127.0.0.1", 0), Banner)) as port:
        policy = EgressPolicy.of([f"git.test:{port}"], private_ok=["git.test"])
        outcome = box.run(f"ssh -p {port} -o StrictHostKeyChecking=no git@git.test true", policy)
    assert outcome.exit_code == 255
    assert heard[0].startswith(b"SSH-2.0-")


@sandboxed
def test_connections_end_with_the_run(box: Box, echo: int) -> None:
    policy = EgressPolicy.of([f"127.0.0.1:{echo}"], private_ok=["127.0.0.1"])
    ask = ASK.format(destination=f"127.0.0.1:{echo}").replace("head -c 49", "cat")
    script = f"({ask}) & sleep 0.3; exit 0"
    started = time.monotonic()
    assert box.run(script, policy).ok
    assert time.monotonic() - started < 105
    assert not [thread for thread in threading.enumerate() if thread.name == "egress"]


# real package clients


def index_policy() -> EgressPolicy:
    return EgressPolicy.of([], indexes=package_indexes().hosts, private_ok=["indexes"])


def index_mounts() -> tuple[Mount, ...]:
    return tuple(Mount(folder, str(folder)) for folder in package_indexes().folders)


def unreachable(host: str) -> bool:
    name, _, port = host.rpartition(":")
    try:
        socket.create_connection((name, int(port)), timeout=3).close()
    except OSError:
        return True
    return False


@sandboxed
def test_npm_ci_works_unchanged(box: Box, tmp_path: Path) -> None:
    registry = package_indexes().env.get("npm_config_registry", "")
    if shutil.which("npm", path="/usr/local/bin:/usr/bin") is None:
        pytest.skip("there is no npm below /usr")
    host = next((host for host in package_indexes().hosts if host.split(":")[0] in registry), None)
    if host is None or unreachable(host):
        pytest.skip("no npm registry can be reached")
    outcome = box.run(
        'echo \'{"name":"x","version":"1.0.0","dependencies":{"left-pad":"1.3.0"}}\' > package.json && '
        "npm install --package-lock-only && npm ci && cat node_modules/left-pad/package.json && "
        "node -e 'console.log(require(\"left-pad\")(7, 3, 0))'",
        index_policy(),
        env=package_indexes().env,
        mounts=index_mounts(),
    )
    assert outcome.ok, box.text("stderr") + box.text("system")
    assert box.text().endswith("007\n")


@sandboxed
def test_pip_works_unchanged(box: Box) -> None:
    if not Path("/usr/bin/python3").exists() or not package_indexes().env.get("PIP_INDEX_URL"):
        pytest.skip("there is no Python below /usr, or no pip on this machine")
    host = next(
        (host for host in package_indexes().hosts if host.split(":")[0] in package_indexes().env["PIP_INDEX_URL"]), None
    )
    if host is None or unreachable(host):
        pytest.skip("no Python index can be reached")
    env = {key: value for key, value in package_indexes().env.items() if "FIND_LINKS" not in key and "EXTRA" not in key}
    outcome = box.run(
        "python3 -m pip --version || exit 42; python3 -m pip download -q --no-deps -d got six==1.16.0 && ls got && "
        "python3 -m pip install -q --target lib got/*.whl && "
        "PYTHONPATH=lib python3 -c 'import six; print(six.__version__)'",
        index_policy(),
        env=env,
    )
    if outcome.exit_code == 42:
        pytest.skip("/usr/bin/python3 has no pip")
    assert outcome.ok, box.text("stderr") + box.text("system")
    assert box.text().endswith("1.16.0\n")


@sandboxed
def test_an_index_at_a_private_address_needs_the_operators_word(box: Box, echo: int) -> None:
    refused = EgressPolicy.of([], indexes=[f"127.0.0.1:{echo}"])
    assert box.run(ASK.format(destination=f"127.0.0.1:{echo}"), refused).denied == (f"127.0.0.1:{echo}",)
    box.heard.clear()
    allowed = EgressPolicy.of([], indexes=[f"127.0.0.1:{echo}"], private_ok=["indexes"])
    assert box.run(ASK.format(destination=f"127.0.0.1:{echo}"), allowed).denied == ()


@sandboxed
@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
def test_git_fetches_over_http_through_the_proxy(box: Box, tmp_path: Path) -> None:
    def git(*words: str) -> str:
        env = {"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
        return subprocess.run(["git", *words], cwd=tmp_path, env=env, check=True, capture_output=True, text=True).stdout

    git("init", "-q", "-b", "main", "origin")
    (tmp_path / "origin" / "a").write_text("a")
    git("-C", "origin", "add", ".")
    git("-C", "origin", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "one")
    git("-C", "origin", "update-server-info")

    class Files(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = tmp_path / "origin" / ".git" / self.path.partition("?")[0].removeprefix("/repo.git/")
            body = path.read_bytes() if path.is_file() else b""
            self.send_response(200 if path.is_file() else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Files)) as port:
        policy = EgressPolicy.of([f"localhost:{port}"], private_ok=["localhost"])
        address = f"http://localhost:{port}/repo.git"
        outcome = box.run(f"NO_PROXY= no_proxy= git clone -q --bare {address} m && git -C m rev-parse main", policy)
    assert outcome.ok, box.text("stderr") + box.text("system")
    assert box.text().strip() == git("-C", "origin", "rev-parse", "main").strip()
