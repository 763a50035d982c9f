"""From presigned addresses into the content store: the ranges of packs that hold what is missing here.

Streams are closed by whoever reads them. One that is left to the garbage collector may be closed while the HTTP
library's pool holds its own lock, in the same thread, and no download of this process comes to an end after that.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Final, Protocol

import httpx

from adapters.artifact.layout import Layout, Location
from adapters.hosting.store import Content, ContentStore
from headway.errors import HeadwayError

# One request for neighbours: below this gap the bytes between cost less than another round trip.
MAX_GAP: Final = 256 << 10
_CHUNK: Final = 256 << 10


class Missing(HeadwayError):
    """A part of the artifact is not in the object store. One that has just started may say so of what it holds."""


class Short(HeadwayError):
    """An object ends before what was asked of it."""


class Downloads(Protocol):
    def read(self, url: str, limit: int) -> bytes:
        """A whole object of at most `limit` bytes. Raises artifact.collected (404) or roll.place_failed."""

    def range(self, url: str, start: int, length: int) -> Generator[bytes, None, None]:
        """Exactly `length` bytes from `start`, in pieces, for the caller to close. Raises as `read` does."""


class HttpDownloads:
    """Presigned GETs. Thread-safe; a lost connection is roll.place_failed, which is tried again."""

    def __init__(self, client: httpx.Client | None = None) -> None:
        limits = httpx.Limits(max_connections=32)
        self._client = client or httpx.Client(timeout=httpx.Timeout(20, connect=5), trust_env=False, limits=limits)

    def close(self) -> None:
        self._client.close()

    def read(self, url: str, limit: int) -> bytes:
        body = bytearray()
        with closing(self._stream(url, {}, 200)) as chunks:
            for chunk in chunks:
                body += chunk
                if len(body) > limit:
                    raise HeadwayError("roll.verify_failed", f"An object is larger than {limit >> 20} MiB.")
        return bytes(body)

    def range(self, url: str, start: int, length: int) -> Generator[bytes, None, None]:
        left = length
        with closing(self._stream(url, {"Range": f"bytes={start}-{start + length - 1}"}, 206)) as chunks:
            for chunk in chunks:
                yield chunk[:left]
                left -= len(chunk)
                if left <= 0:
                    return
        if left > 0:
            raise Short("roll.place_failed", "The object store sent too little.")

    def _stream(self, url: str, headers: dict[str, str], wanted: int) -> Generator[bytes, None, None]:
        # Packs are bytes as they are: an encoding on the way would only have to be undone.
        fields = {"Accept-Encoding": "identity", **headers}
        try:
            with self._client.stream("GET", url, headers=fields) as answer:
                if answer.status_code == 404:
                    raise Missing("artifact.collected", "The object store no longer has a part of the artifact.")
                if answer.status_code == 416:
                    raise Short("roll.place_failed", "An object is shorter than its layout says.")
                if answer.status_code != wanted:
                    raise HeadwayError("roll.place_failed", f"The object store answered {answer.status_code}.")
                yield from answer.iter_raw(_CHUNK)
        except httpx.HTTPError as error:
            # The message of the library may quote the presigned address.
            raise HeadwayError("roll.place_failed", f"The object store is away ({type(error).__name__}).") from None


@dataclass(frozen=True)
class Span:
    """One range of one pack and the contents in it, by offset."""

    pack: str
    start: int
    length: int
    contents: tuple[tuple[Content, Location], ...]


def plan_spans(wanted: Iterable[Content], layout: Layout) -> list[Span]:
    """The ranges to read. Raises roll.verify_failed where the layout does not fit the manifest."""
    located: list[tuple[Content, Location]] = []
    for content in wanted:
        where = layout.contents.get(content.sha256)
        if where is None or where.size != content.size:
            raise HeadwayError("roll.verify_failed", f"The layout has no place for {content.sha256[:12]}….")
        located.append((content, where))
    located.sort(key=lambda one: (one[1].pack, one[1].offset))
    spans: list[list[tuple[Content, Location]]] = []
    for one in located:
        last = spans[-1][-1][1] if spans else None
        gap = one[1].offset - (last.offset + last.size) if last and last.pack == one[1].pack else -1
        if 0 <= gap <= MAX_GAP:
            spans[-1].append(one)
        else:
            spans.append([one])
    return [_span(group) for group in spans]


def fetch_contents(
    store: ContentStore,
    wanted: Iterable[Content],
    layout: Layout,
    packs: Mapping[str, str],
    downloads: Downloads,
    check: Callable[[], None],
) -> None:
    """Bring contents into the store; they are kept some at a time, so that another try goes on from there.

    `packs` maps a pack's sha256 to its address; `check` is called between pieces and raises to stop.
    """
    once: dict[str, Content] = {}
    twins = []
    for content in wanted:
        if content.size == 0:
            store.put(content, ())
        elif content.sha256 in once:
            twins.append(content)
        elif not store.mirror(content):
            once[content.sha256] = content
    with store.intake() as intake:
        for span in plan_spans(once.values(), layout):
            url = packs.get(span.pack)
            if url is None:
                raise HeadwayError("roll.verify_failed", f"Nobody gave an address for the pack {span.pack[:12]}….")
            with closing(downloads.range(url, span.start, span.length)) as chunks:
                pieces = _Pieces(chunks, span.start, check)
                for content, where in span.contents:
                    pieces.skip_to(where.offset)
                    intake.put(content, pieces.take(where.size))
    for content in twins:
        store.mirror(content)


def _span(group: list[tuple[Content, Location]]) -> Span:
    first, last = group[0][1], group[-1][1]
    return Span(first.pack, first.offset, last.offset + last.size - first.offset, tuple(group))


class _Pieces:
    """A stream of chunks, cut at offsets."""

    def __init__(self, chunks: Iterator[bytes], at: int, check: Callable[[], None]) -> None:
        self._chunks = chunks
        self._at = at
        self._rest = b""
        self._check = check

    def skip_to(self, offset: int) -> None:
        for _ in self.take(offset - self._at):
            pass

    def take(self, size: int) -> Iterator[bytes]:
        while size > 0:
            if not self._rest:
                self._check()
                self._rest = next(self._chunks, b"")
                if not self._rest:
                    raise HeadwayError("roll.place_failed", "The object store sent too little.")
            piece, self._rest = self._rest[:size], self._rest[size:]
            size -= len(piece)
            self._at += len(piece)
            yield piece
