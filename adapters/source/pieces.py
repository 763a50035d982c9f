"""Which ranges of packs a snapshot needs, and a stream of one of them cut into contents that are hashed on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from adapters.artifact.paths import escaped
from adapters.artifact.snapshot import SnapshotFile
from headway.errors import HeadwayError

# One request for neighbours: below this gap the bytes between cost less than another round trip.
MAX_GAP: Final = 256 << 10


@dataclass(frozen=True)
class Place:
    """One content of a pack, and every file that has it."""

    offset: int
    size: int
    sha256: str
    files: tuple[SnapshotFile, ...]


@dataclass(frozen=True)
class Span:
    """A range of a pack: contents by offset, without large gaps."""

    pack: str
    places: tuple[Place, ...]


def plan_spans(files: Iterable[SnapshotFile]) -> list[Span]:
    """By pack and offset. Raises source.invalid where contents lie over one another."""
    found: dict[tuple[str, int, int, str], list[SnapshotFile]] = {}
    for one in files:
        found.setdefault((one.pack, one.offset, one.size, one.sha256), []).append(one)
    spans: list[tuple[str, list[Place]]] = []
    end = 0
    for (pack, offset, size, sha256), having in sorted(found.items(), key=lambda item: item[0]):
        place = Place(offset, size, sha256, tuple(having))
        same = bool(spans) and spans[-1][0] == pack
        if same and offset < end:
            raise HeadwayError("source.invalid", f"The snapshot's {escaped(having[0].path)} lies over another file.")
        if same and offset - end <= MAX_GAP:
            spans[-1][1].append(place)
        else:
            spans.append((pack, [place]))
        end = offset + size
    return [Span(pack, tuple(places)) for pack, places in spans]


def pieces_of(chunks: Iterator[bytes], places: Sequence[Place]) -> Iterator[tuple[Place, Iterator[bytes]]]:
    """Each place with its bytes, to be read to their end before the next. `chunks` begin at the first place's offset.

    Raises source.invalid where the bytes are not what the snapshot says, upload.failed where they end too early.
    """
    cut = _Cut(chunks)
    at = places[0].offset
    for place in places:
        for _ in cut.take(place.offset - at):
            pass
        at = place.offset + place.size
        yield place, _hashed(place, cut.take(place.size))


def _hashed(place: Place, pieces: Iterator[bytes]) -> Iterator[bytes]:
    hasher = hashlib.sha256()
    for piece in pieces:
        hasher.update(piece)
        yield piece
    if hasher.hexdigest() != place.sha256:
        raise HeadwayError("source.invalid", f"{escaped(place.files[0].path)} is not what the snapshot says.")


class _Cut:
    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def take(self, size: int) -> Iterator[bytes]:
        while size > 0:
            if not self._rest:
                self._rest = next(self._chunks, b"")
                if not self._rest:
                    raise HeadwayError("upload.failed", "The object store sent too little.")
            piece, self._rest = self._rest[:size], self._rest[size:]
            size -= len(piece)
            yield piece
