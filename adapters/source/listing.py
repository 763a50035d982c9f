"""A commit as git lists it, without its files: names, modes and ids, and the contents that were asked for.

The list and the contents are written by git inside the sandbox, and are read here as a stranger's.
"""

from __future__ import annotations

import copy
import hashlib
import os
import re
import sys
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

from adapters.artifact.folder import Folder
from adapters.artifact.paths import escaped
from adapters.artifact.tree import CHUNK
from adapters.blobs import Blob, blob_hasher
from headway.errors import HeadwayError

# What the script writes into the workspace.
TREE, BLOBS, MORE = "tree", "blobs", "more"
_ENTRY: Final = re.compile(rb"(100644|100664|100755|120000) blob ([0-9a-f]{40})\t(.+)", re.DOTALL)
_HEAD: Final = re.compile(rb"([0-9a-f]{40}) blob (\d{1,16})\n")
_MODES: Final[dict[bytes, Literal["644", "755", "link"]]] = {
    b"100644": "644",
    b"100664": "644",
    b"100755": "755",
    b"120000": "link",
}


class NotListed(Exception):
    """This commit needs its files: the text says why."""


@dataclass(frozen=True, slots=True)
class Listed:
    path: str
    mode: Literal["644", "755", "link"]
    blob: str


def read_listing(raw: bytes) -> list[Listed]:
    """What `git ls-tree -r -z --full-tree` says, without submodules. Raises NotListed."""
    found = []
    for entry in raw.split(b"\0")[:-1]:
        if entry.startswith(b"160000 commit "):
            continue
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise NotListed("it has an entry of another kind")
        found.append(Listed(os.fsdecode(match[3]), _MODES[match[1]], match[2].decode()))
    return found


def split_blobs(file: IO[bytes], into: Path) -> dict[str, Blob]:
    """What `git cat-file --batch` says: each content becomes a file named by its sha256. Raises NotListed.

    Each is what its id says: that is computed here.
    """
    return dict(_split(file, into))


def _split(file: IO[bytes], into: Path) -> Iterator[tuple[str, Blob]]:
    while head := file.readline(80):
        match = _HEAD.fullmatch(head)
        if match is None:
            raise NotListed("a content is missing")
        name, size = match[1].decode(), int(match[2])
        hasher, named, left = hashlib.sha256(), blob_hasher(size), size
        part = into / "part"
        with part.open("wb") as out:
            while left and (chunk := file.read(min(CHUNK, left))):
                hasher.update(chunk)
                named.update(chunk)
                out.write(chunk)
                left -= len(chunk)
        if left or file.read(1) != b"\n" or named.hexdigest() != name:
            raise NotListed("a content is not what its id says")
        part.rename(into / hasher.hexdigest())
        yield name, Blob(hasher.hexdigest(), size)


class ListedFolder(Folder):
    """A commit's tree by its names, for whoever only looks: what was asked for can be read, the rest cannot.

    Reading something else raises NotListed, a link in the way build.output_invalid, as where the tree lies on a disk.
    """

    def __init__(self, entries: Iterable[Listed], held: Path, blobs: Mapping[str, Blob]) -> None:
        self.fd = -1
        self._held, self._blobs = held, blobs
        self._files = {one.path: one for one in entries}
        self._paths = sorted(self._files)
        self._prefix = ""
        self._range = (0, len(self._paths))

    def close(self) -> None:
        """There is nothing to close."""

    def folder(self, path: str) -> Folder | None:
        parts = _parts(path)
        if ".." in parts:
            raise HeadwayError("build.output_invalid", f"{escaped(path)} leaves the folder.")
        if any(self._prefix + "/".join(parts[:number]) in self._files for number in range(1, len(parts) + 1)):
            message = f"{escaped(path)} is not a folder, or a symbolic link leads to it."
            raise HeadwayError("build.output_invalid", message)
        if not parts:
            return self
        inner = copy.copy(self)
        inner._prefix = f"{self._prefix}{'/'.join(parts)}/"
        inner._range = self._below(inner._prefix)
        return inner if inner._range[0] < inner._range[1] else None

    def open(self, path: str) -> int:
        found = self._files.get(self._prefix + "/".join(_parts(path)))
        if found is None or found.mode == "link":
            raise HeadwayError("build.output_invalid", f"{escaped(path)} is gone, or not a regular file.")
        blob = self._blobs.get(found.blob)
        try:
            return os.open(self._held / (blob.sha256 if blob else ""), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise NotListed(f"{escaped(path)} is read") from error

    def has(self, name: str) -> bool:
        first, end = self._below(f"{self._prefix}{name}/")
        return "/" not in name and (self._prefix + name in self._files or first < end)

    def names(self) -> list[str]:
        start = len(self._prefix)
        return sorted({path[start:].partition("/")[0] for path in self._paths[slice(*self._range)]})

    def _below(self, prefix: str) -> tuple[int, int]:
        """Where the paths stand that begin so."""
        return bisect_left(self._paths, prefix), bisect_left(self._paths, prefix + chr(sys.maxunicode))


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
