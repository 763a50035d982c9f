"""What is read in part is closed by who reads it, and not by the garbage collector whenever that comes by.

The collector may come by while the HTTP library's pool holds its own lock: closing a stream takes that lock too.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from adapters.artifact.layout import Layout, Location
from adapters.hosting.fetch import HttpDownloads, fetch_contents
from adapters.hosting.store import Content, ContentStore
from adapters.source import snapshot
from headway.errors import HeadwayError

PIECE = 64 << 10


class Body(httpx.SyncByteStream):
    def __init__(self) -> None:
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(16):
            yield b"x" * PIECE

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def served(status: int) -> tuple[httpx.Client, Body]:
    body = Body()
    return httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(status, stream=body))), body


@pytest.mark.usefixtures("uncollected")
def test_a_content_that_is_another_than_its_name_says(tmp_path: Path) -> None:
    client, body = served(206)
    (tmp_path / "store").mkdir()
    (tmp_path / "tmp").mkdir()
    content = Content(hashlib.sha256(b"another").hexdigest(), 10 * PIECE, "644")
    layout = Layout({content.sha256: Location("p" * 64, 0, content.size)})
    with pytest.raises(HeadwayError) as held:
        fetch_contents(
            ContentStore(tmp_path / "store", tmp_path / "tmp"),
            [content],
            layout,
            {"p" * 64: "http://store/pack"},
            HttpDownloads(client),
            lambda: None,
        )
    # Whoever keeps the error keeps every frame that it went through.
    assert held.value.code == "roll.verify_failed"
    assert body.closed


@pytest.mark.usefixtures("uncollected")
def test_a_document_that_is_too_large() -> None:
    client, body = served(200)
    with pytest.raises(HeadwayError) as held:
        HttpDownloads(client).read("http://store/manifest", PIECE)
    assert held.value.code == "roll.verify_failed"
    assert body.closed


@pytest.mark.usefixtures("uncollected")
def test_a_snapshot_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MAX_BYTES", PIECE)
    client, body = served(200)
    with pytest.raises(HeadwayError) as held:
        snapshot._read(client, "http://store/snapshot")
    assert held.value.code == "source.too_large"
    assert body.closed
