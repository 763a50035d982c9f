"""What a builder has learned of a site's git blobs: the sha256 of each, by git's own id. One file per site, bounded.

Only what this process has read itself gets in, under the id that it has computed from the same bytes, and the file lies
where no sandbox can write: neither another site's build nor git itself can say what a blob holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from adapters.sandbox.removal import remove_tree

MAGIC: Final = b"HWBLOBS1"
RECORD: Final = 20 + 32 + 8
MOST: Final = 200_000
TOTAL_BYTES: Final = 512 << 20


class Hasher(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Blob:
    sha256: str
    size: int


def blob_id(raw: bytes) -> str:
    """Git's id of a content."""
    return blob_hasher(len(raw), raw).hexdigest()


def blob_hasher(size: int, raw: bytes = b"") -> Hasher:
    """For a content of that size, of which `raw` is the beginning. It names, it does not vouch: sha256 does."""
    return hashlib.sha1(b"blob %d\0" % size + raw, usedforsecurity=False)


class BlobTable:
    """Files below `folder`; sites that were not built for the longest time are forgotten first."""

    def __init__(self, folder: Path, *, most: int = MOST, total_bytes: int = TOTAL_BYTES) -> None:
        self._folder, self._most, self._total = folder, most, total_bytes

    def load(self, site_id: str) -> dict[str, Blob]:
        """Empty where nothing is known, or the file is damaged."""
        try:
            raw = self._path(site_id).read_bytes()
        except OSError:
            return {}
        body, seal = raw[:-32], raw[-32:]
        if not body.startswith(MAGIC) or hashlib.sha256(body).digest() != seal or (len(body) - 8) % RECORD:
            return {}
        found = {}
        for at in range(len(MAGIC), len(body), RECORD):
            name, sha256 = body[at : at + 20].hex(), body[at + 20 : at + 52].hex()
            found[name] = Blob(sha256, int.from_bytes(body[at + 52 : at + RECORD], "big"))
        return found

    def save(self, site_id: str, blobs: Mapping[str, Blob]) -> None:
        """The first `most` of them; what was known before and is not among them is forgotten."""
        body = bytearray(MAGIC)
        for _, (name, blob) in zip(range(self._most), blobs.items(), strict=False):
            body += bytes.fromhex(name) + bytes.fromhex(blob.sha256) + blob.size.to_bytes(8, "big")
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = self._path(site_id).with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        part.write_bytes(bytes(body) + hashlib.sha256(body).digest())
        part.replace(self._path(site_id))
        self._forget(keep=self._path(site_id))

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for contents on their way; what a builder that was killed has left is removed a day later."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self._folder.glob("held-*"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < time.time() - 86_400:
                    remove_tree(path)
        with tempfile.TemporaryDirectory(prefix="held-", dir=self._folder) as folder:
            yield Path(folder)

    def forget(self, site_id: str) -> None:
        self._path(site_id).unlink(missing_ok=True)

    def _forget(self, keep: Path) -> None:
        known = []
        with contextlib.suppress(OSError):
            known = [(path.stat().st_mtime, path.stat().st_size, path) for path in self._folder.glob("*.blobs")]
        total = sum(size for _, size, _ in known)
        for _, size, path in sorted(known):
            if total > self._total and path != keep:
                path.unlink(missing_ok=True)
                total -= size

    def _path(self, site_id: str) -> Path:
        return self._folder / f"{site_id}.blobs"
