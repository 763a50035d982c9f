"""The API as a process: both servers, its stop, its death and its return. Temporal and the object store are away."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = "from api.main import run; run()"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HEADWAY_DATA_DIR": str(folder),
            "HEADWAY_API_PORT": str(port),
            "HEADWAY_READY_FILE": str(folder / "ready"),
            "TEMPORAL_ADDRESS": "127.0.0.1:9",
            "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
        }

    def start(self) -> subprocess.Popen[str]:
        (self.folder / "ready").unlink(missing_ok=True)
        made = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], env=self.environment, stderr=subprocess.PIPE, text=True, cwd="/"
        )
        until = time.monotonic() + 60
        while not (self.folder / "ready").exists():
            assert made.poll() is None, made.stderr.read() if made.stderr else ""
            assert time.monotonic() < until
            time.sleep(0.05)
        return made

    def client(self) -> httpx.Client:
        key = (self.folder / "admin.key").read_text().strip()
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=30)

    def broker(self, role: str) -> httpx.Client:
        token = (self.folder / "secrets" / f"broker-{role}.token").read_text().strip()
        transport = httpx.HTTPTransport(uds=str(self.folder / "run" / "broker.sock"))
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(transport=transport, base_url="http://broker", headers=headers)


@pytest.fixture
def process(tmp_path_factory: pytest.TempPathFactory) -> Process:
    # A socket's path has at most 107 bytes.
    return Process(tmp_path_factory.mktemp("p"), free_port())


@contextlib.contextmanager
def running(process: Process) -> Iterator[subprocess.Popen[str]]:
    made = process.start()
    try:
        yield made
    finally:
        made.kill()
        made.communicate()


@pytest.mark.slow
def test_work_is_accepted_while_temporal_is_away_and_a_stop_ends_streams(process: Process) -> None:
    with running(process) as made, process.client() as client:
        began = time.monotonic()
        job = client.post("/v1/sites", json={"name": "Shop"})
        assert job.status_code == 202
        assert time.monotonic() - began < 10  # a connection's own patience is longer
        with process.broker("host") as broker:
            assert broker.get("/health").json() == {}
        seen: list[str] = []
        first = threading.Event()

        def follow() -> None:
            with client.stream("GET", f"/v1/jobs/{job.json()['data']['id']}/stream") as stream:
                for line in stream.iter_lines():
                    seen.append(line)
                    first.set()

        reader = threading.Thread(target=follow)
        reader.start()
        assert first.wait(10)
        made.send_signal(signal.SIGTERM)
        assert made.wait(20) == 0
        reader.join(10)
        assert "event: job" in seen
        assert not (process.folder / "run" / "broker.sock").exists()


@pytest.mark.slow
def test_what_was_told_before_a_kill_is_there_after_it(process: Process) -> None:
    with running(process) as made:
        with process.client() as client:
            job = client.post("/v1/sites", json={"name": "Shop"}, headers={"Idempotency-Key": "k"}).json()["data"]
        with process.broker("control") as broker:
            for number in range(1, 31):
                heard = broker.post(f"/jobs/{job['id']}/events", json=batch(number))
                assert heard.status_code == 200
        made.kill()
        made.wait(10)
    with (process.folder / "events" / f"{job['id']}.jsonl").open("ab") as file:
        file.write(b'{"n":99,"k":"lo')
    with running(process), process.client() as client, process.broker("control") as broker:
        again = client.post("/v1/sites", json={"name": "Shop"}, headers={"Idempotency-Key": "k"})
        assert again.headers["idempotent-replayed"] == "true"
        assert again.json()["data"]["id"] == job["id"]
        for number in range(28, 33):
            broker.post(f"/jobs/{job['id']}/events", json=batch(number))
        lines: list[dict[str, Any]] = []
        with client.stream("GET", f"/v1/jobs/{job['id']}/stream") as stream:
            for line in stream.iter_lines():
                if line.startswith("data: ") and '"line"' in line:
                    lines.append(json.loads(line.removeprefix("data: ")))
                if len(lines) == 32:
                    break
        assert [line["line"] for line in lines] == [f"line {number}" for number in range(1, 33)]


def batch(number: int) -> dict[str, Any]:
    event = {"kind": "log", "ts": "2026-06-24T14:31:20.114Z", "stream": "system", "line": f"line {number}"}
    return {"source": "control/1", "first": number, "events": [event]}


@pytest.mark.slow
def test_a_busy_port_and_a_long_folder_are_one_sentence(process: Process, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", process.port))
        taken.listen()
        stopped = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=process.environment, capture_output=True, text=True, timeout=60
        )
    assert stopped.returncode == 1
    assert stopped.stderr.splitlines()[-1].startswith(f"api: Cannot listen on 127.0.0.1:{process.port}")
    deep = Process(tmp_path / ("x" * 110), free_port())
    stopped = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=deep.environment, capture_output=True, text=True, timeout=60
    )
    assert stopped.returncode == 1
    assert "too long for a unix socket" in stopped.stderr.splitlines()[-1]
