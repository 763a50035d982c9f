"""Headway's roles as processes of this checkout on servers that are given: any number of each role, on one folder."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 90.0


@dataclass(frozen=True)
class Servers:
    """What the roles share. `temporal` is HOST:PORT."""

    database_url: str
    temporal: str
    s3: str
    access_key: str
    secret_key: str
    namespace: str = "default"


@dataclass
class Part:
    """One process. `port` is an API's; `ready` the file that it makes when it can work."""

    name: str
    process: subprocess.Popen[bytes]
    ready: Path
    log: Path
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()


@dataclass
class Installation:
    """One data folder with the broker's sockets in a folder of their own, as replicas need it."""

    folder: Path
    servers: Servers
    parts: list[Part] = field(default_factory=list)

    @property
    def key(self) -> str:
        return (self.folder / "admin.key").read_text().strip()

    def environment(self, name: str, port: int) -> dict[str, str]:
        brokers = self.folder / "run" / "b"
        brokers.mkdir(parents=True, exist_ok=True)
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": self.servers.database_url,
            "TEMPORAL_ADDRESS": self.servers.temporal,
            "TEMPORAL_NAMESPACE": self.servers.namespace,
            "AWS_ENDPOINT_URL_S3": self.servers.s3,
            "AWS_ACCESS_KEY_ID": self.servers.access_key,
            "AWS_SECRET_ACCESS_KEY": self.servers.secret_key,
            "HEADWAY_DATA_DIR": str(self.folder),
            "HEADWAY_BROKER_SOCKET": str(brokers),
            "HEADWAY_READY_FILE": str(self.folder / "run" / f"{name}.ready"),
            "HEADWAY_API_PORT": str(port),
            "HEADWAY_LOCAL_REPOS": f'["{self.folder / "repositories"}"]',
            "HEADWAY_RATE_LIMITS": "false",
            "HEADWAY_SITES_DOMAIN": "sites.test",
        }

    def start(self, name: str, *words: str, port: int = 0) -> Part:
        """`headway WORDS…`, not waited for."""
        environment = self.environment(name, port)
        ready = Path(environment["HEADWAY_READY_FILE"])
        ready.unlink(missing_ok=True)
        log = self.folder / f"{name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "headway", *words], env=environment, cwd="/", stdout=out, stderr=out
            )
        made = Part(name, process, ready, log, port)
        self.parts.append(made)
        return made

    def api(self, name: str) -> Part:
        return self.start(name, "api", port=free_port())

    def worker(self, name: str, role: str) -> Part:
        return self.start(name, "worker", "--role", role)

    def wait(self, *parts: Part) -> None:
        deadline = time.monotonic() + PATIENCE
        for part in parts:
            while not part.ready.exists():
                assert part.process.poll() is None, f"{part.name} ended: {part.log.read_text()[-2000:]}"
                assert time.monotonic() < deadline, f"{part.name} is not ready: {part.log.read_text()[-2000:]}"
                time.sleep(0.05)

    def client(self, api: Part, timeout: float = 30) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=api.url, headers=headers, timeout=timeout, trust_env=False)

    def stop(self) -> None:
        for part in reversed(self.parts):
            if part.process.poll() is None:
                part.stop()


@contextlib.contextmanager
def installation(folder: Path, servers: Servers) -> Iterator[Installation]:
    made = Installation(folder, servers)
    try:
        yield made
    finally:
        made.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(holds: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
