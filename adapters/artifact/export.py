"""`dist.tar.zst`: an artifact as one archive, streamed, with canonical times, owners and order.

Equal artifacts give equal tar bytes; the compressor around them may differ between versions, so nothing is ever named
by the archive's own hash.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from typing import Final

import zstandard

from adapters.artifact.manifest import Entry, File, Manifest
from headway.errors import HeadwayError

LEVEL: Final = 3
_BLOCK: Final = tarfile.BLOCKSIZE

Read = Callable[[str, int], Iterator[bytes]]


def export_tar(manifest: Manifest, read: Read) -> Iterator[bytes]:
    """The archive uncompressed. `read(sha256, size)` yields a content's bytes. Raises roll.verify_failed."""
    for entry in manifest.entries:
        yield _header(entry)
        if isinstance(entry, File):
            yield from _content(entry, read)
    yield b"\0" * (2 * _BLOCK)


def export_zst(manifest: Manifest, read: Read, level: int = LEVEL) -> Iterator[bytes]:
    """The archive compressed by zstd."""
    compressor = zstandard.ZstdCompressor(level=level).compressobj()
    for chunk in export_tar(manifest, read):
        packed = compressor.compress(chunk)
        if packed:
            yield packed
    yield compressor.flush()


def _content(entry: File, read: Read) -> Iterator[bytes]:
    sent = 0
    for chunk in read(entry.sha256, entry.size):
        sent += len(chunk)
        yield chunk
    if sent != entry.size:
        raise HeadwayError("roll.verify_failed", f"The content of {entry.path} has not its size.")
    yield b"\0" * (-sent % _BLOCK)


def _header(entry: Entry) -> bytes:
    info = tarfile.TarInfo(entry.path)
    if isinstance(entry, File):
        info.size, info.mode = entry.size, int(entry.mode, 8)
    else:
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.target, 0o777
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
