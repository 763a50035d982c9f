"""A serving machine for tests: host folders, artifacts from dictionaries, a real Caddy and a real rules server."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters.artifact.layout import Layout, Location
from adapters.artifact.manifest import File, Link, Manifest, make_manifest
from adapters.artifact.rules import StaticRules
from adapters.artifact.run import RunSettings
from adapters.hosting.fetch import Missing
from adapters.hosting.host import Host, Limits
from adapters.hosting.layout import HostFolders
from adapters.router.caddy import Logged, rendered
from headway.broker import RollSpec
from headway.errors import HeadwayError

ENV = "env_01TESTTESTTESTTESTTESTTEST"
SITE = "site_01TESTTESTTESTTESTTESTTEST"
HOST = "acme.localhost"
ROOT = Path(__file__).parents[2]


@dataclass
class Shelf:
    """Objects by address: what the object store would give. `asked` are the ranges that were read."""

    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, int, int]] = field(default_factory=list)

    def read(self, url: str, limit: int) -> bytes:
        if url not in self.objects:
            raise Missing("artifact.collected", "gone")
        assert len(self.objects[url]) <= limit
        return self.objects[url]

    def range(self, url: str, start: int, length: int) -> Generator[bytes, None, None]:
        self.asked.append((url, start, length))
        data = self.read(url, 1 << 30)[start : start + length]
        for at in range(0, len(data), 7_000):
            yield data[at : at + 7_000]

    def artifact(
        self,
        files: Mapping[str, bytes],
        *,
        links: Mapping[str, str] | None = None,
        static: StaticRules | None = None,
        run: RunSettings | None = None,
        executable: frozenset[str] = frozenset(),
        rollout: str = "roll_01TESTTESTTESTTESTTESTTEST",
        env_id: str = ENV,
    ) -> tuple[RollSpec, Manifest]:
        """Shelve manifest, layout, bundle and one pack, and say how to place them."""
        entries: list[File | Link] = [Link(path, target) for path, target in (links or {}).items()]
        pack, located = bytearray(), {}
        for path, data in files.items():
            sha = hashlib.sha256(data).hexdigest()
            entries.append(File(path, "755" if path in executable else "644", len(data), sha))
            if sha not in located:
                located[sha] = (len(pack), len(data))
                pack += data
        manifest = make_manifest(entries, static=static, run=run)
        sha = hashlib.sha256(pack).hexdigest()
        layout = Layout({one: Location(sha, offset, size) for one, (offset, size) in located.items()})
        base = f"shelf:{manifest.digest}"
        self.objects |= {
            f"{base}/manifest": manifest.raw,
            f"{base}/layout": layout.raw,
            f"{base}/bundle": b"signed " + manifest.digest.encode(),
            f"shelf:{sha}": bytes(pack),
        }
        spec = RollSpec(
            rollout_id=rollout,
            job_id="job_01TESTTESTTESTTESTTESTTEST",
            kind="deploy",
            site_id=SITE,
            env_id=env_id,
            artifact_id="art_01TESTTESTTESTTESTTESTTEST",
            digest=manifest.digest,
            manifest_url=f"{base}/manifest",
            layout_url=f"{base}/layout",
            bundle_url=f"{base}/bundle",
            packs={sha: f"shelf:{sha}"},
            apply_seq=1,
            undo_seq=2,
            hostnames=[HOST],
        )
        return spec, manifest


def verify(bundle: bytes, digest: str, site_id: str) -> None:
    """Stands for the signer: a bundle is good if it names the digest."""
    if bundle != b"signed " + digest.encode():
        raise HeadwayError("artifact.signature_invalid", "not what the platform signed")


def keep_on() -> None:
    """The check of a rollout that nobody cancels."""


class Machine:
    """A host with its shelf. `deploy` places and switches, counting sequence numbers by itself."""

    def __init__(self, root: Path, limits: Limits | None = None) -> None:
        self.shelf = Shelf()
        self.host = Host(HostFolders(root), verify, self.shelf, limits or Limits(floor=0))
        self.seq = 0
        self.sites = 0

    def site(self, files: Mapping[str, bytes], **how: Any) -> tuple[str, str]:
        """A new environment with a name of its own that serves these files: `(host name, env_id)`."""
        self.sites += 1
        host, env_id = f"site-{self.sites}.localhost", f"env_01SITE{self.sites:022d}"
        self.host.route(env_id, [host])
        self.deploy(files, env_id=env_id, **how)
        return host, env_id

    def deploy(
        self,
        files: Mapping[str, bytes],
        *,
        env_id: str = ENV,
        links: Mapping[str, str] | None = None,
        static: StaticRules | None = None,
    ) -> int:
        spec, _ = self.shelf.artifact(files, links=links, static=static, env_id=env_id)
        self.seq += 1
        self.host.place(spec, self.seq, keep_on)
        self.host.environment(env_id).switch(self.seq)
        return self.seq


@dataclass
class Response:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


@dataclass
class Server:
    """Where Caddy listens; requests connect to loopback and send `Host`."""

    port: int
    rules_socket: Path
    log: Path
    restart_rules: Callable[[], None]
    stop_rules: Callable[[], None]
    freeze_rules: Callable[[], None]
    kill_and_restart: Callable[[], None]

    def get(self, path: str = "/", host: str = HOST, method: str = "GET", **fields: str) -> Response:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", host)
            for name, value in fields.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            answer = connection.getresponse()
            return Response(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def raw(self, request: bytes) -> bytes:
        """Send bytes that no client library would send; the whole answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as line:
            line.sendall(request)
            answer = b""
            while chunk := line.recv(65536):
                answer += chunk
            return answer


def program(name: str) -> str:
    return shutil.which(name) or str(Path(sys.executable).with_name(name))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_server(folders: HostFolders, run: Path, *, logged: Logged = "off") -> Iterator[Server]:
    """Start Caddy and the rules server; on the way out both are ended. `run` has a short path: sockets lie there."""
    run.mkdir(parents=True, exist_ok=True)
    port, rules = free_port(), run / "rules.sock"
    config = run / "caddy.json"
    config.write_bytes(
        rendered(
            routes=folders.routes,
            listen=f"127.0.0.1:{port}",
            rules_socket=rules,
            plain_socket=run / "plain.sock",
            state=run / "caddy",
            logged=logged,
        )
    )
    log = run / "caddy.log"
    helpers: list[subprocess.Popen[bytes]] = []

    def start_rules() -> None:
        rules.unlink(missing_ok=True)
        code = "import sys; from pathlib import Path; from adapters.router.rules_server import serve; "
        code += "serve(Path(sys.argv[1]), Path(sys.argv[2]))"
        command = [sys.executable, "-c", code, str(folders.routes), str(rules)]
        helpers.append(subprocess.Popen(command, cwd=ROOT))
        _wait(rules.exists)

    def stop_rules() -> None:
        helpers[-1].kill()
        helpers[-1].wait()

    def freeze_rules() -> None:
        helpers[-1].send_signal(signal.SIGSTOP)

    caddy: list[subprocess.Popen[bytes]] = []

    def start_caddy() -> None:
        with open(log, "ab") as out:
            command = [program("caddy"), "run", "--config", str(config)]
            # A home of its own: Caddy writes to it.
            env = {**os.environ, "HOME": str(run)}
            caddy.append(subprocess.Popen(command, cwd=folders.root, stdout=out, stderr=out, env=env))
        _wait(lambda: _listens(port))

    def kill_and_restart() -> None:
        caddy[-1].kill()
        caddy[-1].wait()
        start_caddy()

    try:
        start_rules()
        start_caddy()
        yield Server(port, rules, log, start_rules, stop_rules, freeze_rules, kill_and_restart)
    finally:
        for process in helpers:
            process.kill()
            process.wait()
        for process in caddy:
            process.terminate()
            process.wait(20)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _wait(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < deadline, "a server did not start"
        time.sleep(0.02)
