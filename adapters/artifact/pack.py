"""A pack: contents one after the other, as they are, in one object named by its sha256.

Not compressed: a content's identity is its own bytes, so that any compressor may change without changing a digest; a
host can read one content by range or the whole pack in one stream; and equal contents in equal order give equal packs.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from adapters.artifact.aside import Aside
from adapters.artifact.folder import Folder
from adapters.artifact.layout import Location
from adapters.artifact.paths import escaped
from adapters.artifact.tree import CHUNK, Content, Tree, stamp
from headway.errors import HeadwayError


@dataclass(frozen=True)
class Pack:
    """A pack that is not yet anywhere: `chunks()` reads it as often as it has to be sent."""

    folder: Folder
    contents: tuple[Content, ...]
    sha256: str
    size: int

    @property
    def locations(self) -> dict[str, Location]:
        """Where each content lies, by sha256."""
        out: dict[str, Location] = {}
        offset = 0
        for one in self.contents:
            out[one.sha256] = Location(self.sha256, offset, one.size)
            offset += one.size
        return out

    def chunks(self) -> Iterator[bytes]:
        """The pack's bytes. Raises build.output_invalid where a file is not what was scanned."""
        return _chunks(self.folder, self.contents)


def make_pack(folder: Folder, tree: Tree, missing: Collection[str]) -> Pack | None:
    """A pack of the `missing` contents of a scanned folder, in the order of the scan; None where nothing is missing."""
    wanted = set(missing)
    contents = tuple(one for sha, one in tree.contents.items() if sha in wanted)
    if len(contents) != len(wanted):
        raise HeadwayError("internal.error", "The broker asked for contents that the output does not have.")
    if not contents:
        return None
    whole = tree.together if len(contents) == len(tree.contents) else None
    return Pack(folder, contents, whole or _digest(folder, contents), sum(one.size for one in contents))


def _digest(folder: Folder, contents: tuple[Content, ...]) -> str:
    with Aside() as aside:
        for one in contents:
            for piece in _pieces(folder, one):
                aside.feed(piece)
        return aside.hexdigest()


def _chunks(folder: Folder, contents: tuple[Content, ...]) -> Iterator[bytes]:
    batch: list[bytes] = []
    size = 0
    for one in contents:
        for piece in _pieces(folder, one):
            batch.append(piece)
            size += len(piece)
            if size >= CHUNK:
                yield b"".join(batch)
                batch, size = [], 0
    if batch:
        yield b"".join(batch)


def _pieces(folder: Folder, content: Content) -> Iterator[bytes]:
    if content.raw is not None:
        yield content.raw
        return
    fd = folder.open(content.path)
    try:
        left = content.size
        while left > 0 and (chunk := os.read(fd, min(CHUNK, left))):
            left -= len(chunk)
            yield chunk
        if left or stamp(os.fstat(fd)) != content.stamp:
            raise HeadwayError("build.output_invalid", f"{escaped(content.path)} changed while it was packed.")
    finally:
        os.close(fd)
