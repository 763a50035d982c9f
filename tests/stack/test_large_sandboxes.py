"""Sandboxes near their limits, through the vendor's client: many files, and many bytes."""

from __future__ import annotations

import hashlib
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from miosa import Miosa

from bench.stack import Stack
from tests.stack.sdk_surface import fetch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_200)]
FILES = 10_000
PIECE = 4 << 20
PIECES = 125  # half a gigabyte


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


def published(client: Miosa, name: str, sandbox_id: str) -> str:
    """The address; a publish that outlasts the answer is asked for again by its key, which joins it."""
    made = client.deployments.create(name=name)
    for _ in range(20):
        result = client.deployments.publish(made.id, source_sandbox_id=sandbox_id, idempotency_key=name)
        if result.version.state.value not in ("created", "building"):
            assert result.promoted, result.version.model_extra
            return str(result.deployment.public_url)
    raise AssertionError("never published")


def test_ten_thousand_files(stack: Stack, client: Miosa) -> None:
    box = client.sandboxes.create()
    files: list[Any] = [{"path": f"d{n % 100}/{n}.txt", "data": f"file {n}"} for n in range(FILES)]
    for start in range(0, FILES, 2_500):
        box.files.write_files(files[start : start + 2_500])
    box.files.write("/workspace/index.html", "many")
    told = box.files.list("/workspace/d7")
    assert len(told["data"]["entries"] if "data" in told else told["entries"]) == FILES // 100
    url = published(client, "Many", box.id)
    for n in (0, 4_999, FILES - 1):
        assert fetch(stack, url, f"/d{n % 100}/{n}.txt") == (200, f"file {n}")


def test_half_a_gigabyte(stack: Stack, client: Miosa) -> None:
    box = client.sandboxes.create()
    for start in range(0, PIECES, 12):
        some: list[Any] = [{"path": f"p/{n}.bin", "data": piece(n)} for n in range(start, min(PIECES, start + 12))]
        box.files.write_files(some)
    box.files.write("/workspace/index.html", "large")
    assert box.files.read("/workspace/p/77.bin") == piece(77)
    url = published(client, "Large", box.id)
    assert fetch(stack, url) == (200, "large")
    for n in (0, PIECES - 1):
        request = urllib.request.Request(
            f"http://127.0.0.1:{stack.sites_port}/p/{n}.bin", headers={"Host": url.split("/")[2].split(":")[0]}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            assert answer.read() == piece(n)
