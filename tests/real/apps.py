"""An app that was built, taken out of the platform, and started plainly from another folder."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from bench.client import Caller, JobFailed, Site
from bench.stack import Stack

# Where a sandbox finds programs; nothing of this checkout's environment is on it.
SEARCH = "/usr/local/bin:/usr/bin:/bin"
PATIENCE = 60.0


@dataclass(frozen=True)
class Built:
    """`result` is the job's; `plan` what the build kept; `run` what the manifest says."""

    result: dict[str, Any]
    manifest: dict[str, Any]
    tree: Path

    @property
    def run(self) -> dict[str, Any]:
        run: dict[str, Any] = self.manifest["run"]
        return run

    @property
    def digest(self) -> str:
        return str(self.result["digest"])

    def paths(self) -> list[str]:
        return [entry["path"] for entry in self.manifest["files"]]

    def mentions(self, *needles: bytes) -> list[str]:
        """Files of the tree in which one of these texts stands."""
        files = (path for path in sorted(self.tree.rglob("*")) if path.is_file() and not path.is_symlink())
        return [str(path.relative_to(self.tree)) for path in files if any(one in path.read_bytes() for one in needles)]


def build(caller: Caller, site: Site, folder: Path, *, clean: bool = False) -> Built:
    """Build `main` for staging, and unpack the artifact into `folder`."""
    base = f"/v1/sites/{site.id}/environments/{site.staging}"
    job = caller.post(f"{base}/builds", {"ref": "main", "clean": clean})
    try:
        result = caller.finish(job, 3700)["result"]
    except JobFailed as error:
        raise AssertionError(caller.http.get(f"{base}/builds/{job['resource']['id']}/log").text) from error
    links = caller.get(f"{base}/artifacts/{result['artifact_id']}")["links"]
    manifest = caller.http.get(links["manifest"]).raise_for_status().json()
    packed = caller.http.get(links["download"]).raise_for_status().content
    raw = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed)).read()
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        archive.extractall(folder, filter="data")
    return Built(result, manifest, folder)


@contextlib.contextmanager
def started(built: Built) -> Iterator[int]:
    """The port of the app, which runs as its manifest says with nothing but what an instance is given."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {"PATH": SEARCH, "HOME": "/nonexistent", "PORT": str(port), "HOST": "127.0.0.1", **built.run["env"]}
    process = subprocess.Popen(
        ["sh", "-c", built.run["command"]],
        cwd=built.tree / built.run["folder"],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        _await(process, port, built.run["health"]["path"])
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def ask(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def visit(stack: Stack, host: str, path: str) -> tuple[int, str]:
    """Status and text of a page of a site, as its visitors get it."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.sites_port, timeout=30)
    try:
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def ask_json(port: int, path: str) -> Any:
    return json.loads(ask(port, path)[1])


def _await(process: subprocess.Popen[bytes], port: int, path: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said = process.stdout.read().decode() if process.stdout else ""
            raise AssertionError(f"the app ended with {process.returncode}: {said}")
        with contextlib.suppress(OSError):
            if 200 <= ask(port, path)[0] < 400:
                return
        time.sleep(0.05)
    raise TimeoutError("the app never answered")
