"""A second serving machine beside a stack: a data folder, a worker, a web server and rules of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.stack import Stack
from headway.supervisor.binaries import CADDY, find
from tests.stack.sites import Page, visit

HEADWAY = (sys.executable, "-m", "headway")
PATIENCE = 60.0
SOCKET = "run/broker.sock"


@dataclass
class SecondHost:
    """`worker` may be killed and started again; what it has started goes on meanwhile, and so does its web server."""

    name: str
    data: Path
    stack: Stack
    port: int
    env: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *argv: str, cwd: Path | None = None) -> None:
        with (self.data / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                argv, env=self.env, cwd=cwd or self.data, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def start_worker(self) -> None:
        self.start("worker", *HEADWAY, "worker", "--role", "host", "--host", self.name)

    def kill_worker(self) -> None:
        self.processes["worker"].send_signal(signal.SIGKILL)
        self.processes["worker"].wait(30)

    def visit(self, hostname: str, path: str = "/") -> Page:
        return visit(replace(self.stack, sites_port=self.port), hostname, path)

    def environment(self, env_id: str) -> Path:
        return self.data / "host" / "env" / env_id


@contextmanager
def joined(stack: Stack, folder: Path, name: str, *labels: str, broker: str = "") -> Iterator[SecondHost]:
    """`broker`: its address by TLS, as from another machine; its socket if empty."""
    data, papers = folder / name, folder / f"{name}-papers"
    # As docs/hosts.md has it: of this machine's folders there is none but the first.
    data.mkdir(parents=True)
    asked = {**os.environ, "HEADWAY_API_URL": stack.api, "HEADWAY_TOKEN": stack.key}
    words = [word for label in labels for word in ("--label", label)]
    subprocess.run(
        [*HEADWAY, "hosts", "join", name, *words, "--output", str(papers)], env=asked, check=True, timeout=60
    )
    env = {
        **{key: value for key, value in os.environ.items() if not key.startswith("HEADWAY_")},
        "HEADWAY_DATA_DIR": str(data),
        **({"HEADWAY_BROKER_ADDRESS": broker} if broker else {"HEADWAY_BROKER_SOCKET": str(stack.data / SOCKET)}),
        "HEADWAY_BROKER_TOKEN_FILE": str(papers / "host.token"),
        "HEADWAY_TRUST_DIR": str(papers),
        "TEMPORAL_ADDRESS": stack.temporal,
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = SecondHost(name, data, stack, port, env)
    config = data / "caddy.json"
    written = (
        *HEADWAY,
        "web-config",
        "--output",
        str(config),
        "--listen",
        f"127.0.0.1:{port}",
        "--state",
        str(data / "caddy"),
    )
    subprocess.run(written, env=env, check=True, timeout=60)
    try:
        made.start("rules", *HEADWAY, "rules")
        made.start("caddy", find(CADDY), "run", "--config", str(config), cwd=data / "host")
        made.start_worker()
        yield made
    finally:
        for process in made.processes.values():
            process.terminate()
        for process in made.processes.values():
            process.wait(30)
        end_apps(data)


def end_apps(data: Path) -> None:
    """Nobody looks after them any more: a keeper that is ended takes its app along."""
    deadline = time.monotonic() + PATIENCE
    while found := [pid for pid, words in command_lines() if "keeper import main" in words and str(data) in words]:
        for pid in found:
            os.kill(pid, signal.SIGTERM)
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def command_lines() -> Iterator[tuple[int, str]]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield int(path.parent.name), path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
