"""Release trees: `trees/<digest>/root/…`, hard links into the content store, made under a temporary name.

A tree belongs to a digest, not to an environment: any number of releases lead to it, so that placing a known
artifact costs one link. Beside each file of a static tree lies its ETag, `<name>.headway-etag`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from adapters.artifact.manifest import File, Link, Manifest
from adapters.artifact.paths import ETAG_SUFFIX
from adapters.hosting.durable import sync_folder, write_file
from adapters.hosting.layout import HostFolders
from adapters.hosting.store import Content, ContentStore


class ReleaseTrees:
    """Safe for several threads and processes."""

    def __init__(self, folders: HostFolders, store: ContentStore) -> None:
        self._folders = folders
        self._store = store

    def folder(self, digest: str) -> Path:
        return self._folders.trees / digest

    def exists(self, digest: str) -> bool:
        return (self.folder(digest) / "manifest.json").is_file()

    def manifest(self, digest: str) -> bytes | None:
        """The manifest's bytes as this host kept them. Not trusted: the caller hashes them again."""
        try:
            return (self.folder(digest) / "manifest.json").read_bytes()
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """While one is between making a tree and leading a release to it, nothing is collected."""
        with self._lock(fcntl.LOCK_SH):
            yield

    def make(self, manifest: Manifest) -> None:
        """Link the tree together and give it its name, durably. Its contents are in the store.

        Raises FileNotFoundError where a content has been collected meanwhile: fetch, and make it again.
        """
        if self.exists(manifest.digest):
            return
        temporary = self._folders.tmp / f"tree-{secrets.token_hex(8)}"
        try:
            self._build(temporary, manifest)
            _sync_tree(temporary)
            os.rename(temporary, self.folder(manifest.digest))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync_folder(self._folders.trees)

    def missing(self, manifest: Manifest) -> list[Content]:
        """The contents that the store does not hold, each once."""
        wanted = {Content(one.sha256, one.size, one.mode) for one in manifest.files}
        return [one for one in sorted(wanted, key=lambda one: one.sha256) if not self._store.holds(one)]

    def collect(self, used: set[str]) -> list[str]:
        """Put the trees whose digest is not in `used` into `tmp`. The caller holds `exclusive`."""
        gone = []
        for folder in self._folders.trees.iterdir():
            if folder.name in used or folder.name.startswith("."):
                continue
            os.rename(folder, self._folders.tmp / f"trash-{secrets.token_hex(8)}")
            gone.append(folder.name)
        return gone

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[bool]:
        """The opposite of `in_use`. False where somebody is at it: collect another time."""
        try:
            with self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
                yield True
        except BlockingIOError:
            yield False

    def _build(self, folder: Path, manifest: Manifest) -> None:
        root = folder / "root"
        root.mkdir(parents=True)
        for parent in parents(manifest):
            (root / parent).mkdir()
        etags = manifest.kind == "static"
        for entry in manifest.entries:
            self._place(str(root), entry, etags=etags)
        write_file(folder / "manifest.json", manifest.raw)

    def _place(self, root: str, entry: File | Link, *, etags: bool) -> None:
        target = f"{root}/{entry.path}"
        if isinstance(entry, Link):
            os.symlink(entry.target, target)
            return
        link_content(self._store.name(Content(entry.sha256, entry.size, entry.mode)), target)
        if etags:
            link_content(self._store.etag(entry.sha256), target + ETAG_SUFFIX)

    @contextlib.contextmanager
    def _lock(self, how: int) -> Iterator[None]:
        fd = os.open(self._folders.trees / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, how)
            yield
        finally:
            os.close(fd)


def parents(manifest: Manifest) -> list[str]:
    """The folders of a manifest, outer ones first."""
    found: set[str] = set()
    for entry in manifest.entries:
        folder = entry.path.rpartition("/")[0]
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return sorted(found)


def link_content(source: str, target: str) -> None:
    """A hard link; where a content has as many as the file system allows, a sealed copy."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        shutil.copyfile(source, target)
        shutil.copystat(source, target)


def _sync_tree(folder: Path) -> None:
    for inner, _, _ in os.walk(folder, topdown=False):
        sync_folder(Path(inner))
