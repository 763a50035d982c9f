"""Sandboxes near their limits, through the vendor's client: many files, and many bytes; what each part of it costs."""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from miosa import Miosa

from bench.memory import pss_by_component
from bench.stack import Stack
from tests.stack.sdk_surface import fetch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2_400)]
FILES = 10_000
PIECE = 4 << 20
PIECES = 125  # half a gigabyte
# MiB of PSS at the peak: some times a request's body, and no multiple of the tree.
MOST = {"api": 700, "builder": 300, "host": 300, "control": 300}


@dataclass
class Peak:
    """The most that each component had, looked at twice a second."""

    stack: Stack
    most: dict[str, int] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        while not self._over.wait(0.5):
            for name, size in pss_by_component(self.stack).items():
                self.most[name] = max(size, self.most.get(name, 0))

    def __enter__(self) -> Peak:
        self._thread = threading.Thread(target=self.watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    def check(self) -> None:
        print(json.dumps(self.most))  # noqa: T201
        for role, bound in MOST.items():
            found = [size for name, size in self.most.items() if role in name]
            assert found, f"{role} was not measured: {sorted(self.most)}"
            assert max(found) < bound, f"{role}: {max(found)} MiB"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """With the limits that an installation has by itself."""
    with tempfile.TemporaryDirectory(prefix="hwl-") as folder:
        made = Stack.start(Path(folder))
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[Miosa]:
    with Miosa(api_key=stack.key, base_url=stack.api, timeout=300, max_retries=0) as made:
        yield made


def piece(number: int) -> bytes:
    """Bytes that nothing compresses or shares."""
    return hashlib.shake_128(str(number).encode()).digest(PIECE)


def publish(client: Miosa, deployment_id: str, sandbox_id: str, key: str) -> tuple[str, str]:
    """Address and version; a publish that outlasts the answer is asked for again by its key, which joins it."""
    for _ in range(40):
        result = client.deployments.publish(deployment_id, source_sandbox_id=sandbox_id, idempotency_key=key)
        if result.version.state.value not in ("created", "building"):
            assert result.promoted, result.version.model_extra
            return str(result.deployment.public_url), result.version.id
    raise AssertionError("never published")


def sent(client: Miosa, deployment_id: str, version_id: str) -> int:
    """Bytes that the builder uploaded, as it said itself."""
    log = client.deployments.version_logs(deployment_id, version_id)
    line = next(line for line in log.splitlines() if "uploaded" in line and "bytes" in line)
    return int(line.split("uploaded ")[1].split(" ")[0])


def body_of(stack: Stack, url: str, path: str) -> bytes:
    request = urllib.request.Request(
        f"http://127.0.0.1:{stack.sites_port}{path}", headers={"Host": url.split("/")[2].split(":")[0]}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        found: bytes = answer.read()
    return found


def test_ten_thousand_files(stack: Stack, client: Miosa) -> None:
    with Peak(stack) as peak:
        box = client.sandboxes.create()
        files: list[Any] = [{"path": f"d{n % 100}/{n}.txt", "data": f"file {n}"} for n in range(FILES)]
        for start in range(0, FILES, 2_500):
            assert box.files.write_many(files[start : start + 2_500])["failed"] == []
        box.files.write("/workspace/index.html", "many")
        told = box.files.list("/workspace/d7")
        assert len(told["data"]["entries"] if "data" in told else told["entries"]) == FILES // 100
        made = client.deployments.create(name="Many")
        url, first = publish(client, made.id, box.id, "many-1")
        for n in (0, 4_999, FILES - 1):
            assert fetch(stack, url, f"/d{n % 100}/{n}.txt") == (200, f"file {n}")
        box.files.write("/workspace/d7/7.txt", "another")
        _, second = publish(client, made.id, box.id, "many-2")
        assert fetch(stack, url, "/d7/7.txt") == (200, "another")
        assert fetch(stack, url, "/d8/8.txt") == (200, "file 8")
        whole = sum(len(one["data"]) for one in files)
        # The manifest names every file, so it is sent anew; of the contents only the changed one.
        assert sent(client, made.id, first) > whole
        assert sent(client, made.id, second) <= sent(client, made.id, first) - whole + 1_000
    peak.check()


def test_half_a_gigabyte(stack: Stack, client: Miosa) -> None:
    with Peak(stack) as peak:
        box = client.sandboxes.create()
        for start in range(0, PIECES, 12):
            some: list[Any] = [{"path": f"p/{n}.bin", "data": piece(n)} for n in range(start, min(PIECES, start + 12))]
            box.files.write_files(some)
        box.files.write("/workspace/index.html", "large")
        assert box.files.read("/workspace/p/77.bin") == piece(77)
        made = client.deployments.create(name="Large")
        url, first = publish(client, made.id, box.id, "large-1")
        assert fetch(stack, url) == (200, "large")
        for n in (0, PIECES - 1):
            assert body_of(stack, url, f"/p/{n}.bin") == piece(n)
        box.files.write("/workspace/p/3.bin", piece(1_000))
        _, second = publish(client, made.id, box.id, "large-2")
        assert body_of(stack, url, "/p/3.bin") == piece(1_000)
        assert body_of(stack, url, "/p/4.bin") == piece(4)
        assert sent(client, made.id, first) >= PIECES * PIECE
        assert sent(client, made.id, second) <= PIECE + (1 << 20)
    peak.check()


def test_a_tree_of_many_small_writes(stack: Stack, client: Miosa) -> None:
    """Each is an object of its own: addresses are asked for some at a time."""
    box = client.sandboxes.create()
    for n in range(450):
        box.files.write(f"/workspace/{n}.txt", f"single {n}")
    box.files.write("/workspace/index.html", "singles")
    made = client.deployments.create(name="Singles")
    url, _ = publish(client, made.id, box.id, "singles")
    for n in (0, 449):
        assert fetch(stack, url, f"/{n}.txt") == (200, f"single {n}")
