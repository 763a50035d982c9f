"""The folders that headway.toml declares: moved from the cache into the workspace, and back after the build.

Moved and not copied: both lie on the builder's disk. Each step by descriptors, so that no link of the tree's leads
elsewhere; what is not a folder stays where it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from adapters.cache import FOLDERS
from adapters.sandbox.removal import FOLDER, remove_tree


class Shelf:
    """`paths` are relative to the workspace. Nothing runs in either place while this works."""

    def __init__(self, workspace: Path, cached: Path, paths: Iterable[str]) -> None:
        self._workspace, self._cached = workspace, cached
        self._paths = tuple(paths)

    def put(self, *, within: bool) -> list[str]:
        """Move what is kept into the workspace: what lies below `node_modules` if `within`, else all the rest.

        (An install empties `node_modules`: what is kept below it comes after that.) Which were moved.
        """
        return [path for path in self._paths if ("node_modules" in path.split("/")) is within and self._put(path)]

    def _put(self, path: str) -> bool:
        above, _, name = path.rpartition("/")
        with _opened(self._cached, FOLDERS) as home, _opened(self._workspace, above, make=True) as place:
            if home is None or place is None or not _is_folder(home, _kept(path)) or _there(place, name):
                return False
            return _move(home, _kept(path), place, name)

    def take(self) -> list[str]:
        """Move what the build has left back to the cache. Which were there."""
        return [path for path in self._paths if self._take(path)]

    def _take(self, path: str) -> bool:
        above, _, name = path.rpartition("/")
        with _opened(self._workspace, above) as place:
            if place is None or not _is_folder(place, name):
                return False
            with _opened(self._cached, FOLDERS) as home:
                if home is None:
                    # Nothing, or something that a build has put in its place.
                    remove_tree(self._cached / FOLDERS)
                else:
                    remove_tree(self._cached / FOLDERS / _kept(path))
            with _opened(self._cached, FOLDERS, make=True) as home:
                return home is not None and _move(place, name, home, _kept(path))


def _kept(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()[:32]


def _move(source: int, name: str, target: int, new: str) -> bool:
    try:
        os.rename(name, new, src_dir_fd=source, dst_dir_fd=target)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _opened(root: Path, path: str, *, make: bool = False) -> Iterator[int | None]:
    """The folder at a path below, no link followed; None where there is no such folder."""
    at = os.open(root, FOLDER)
    found: int | None = at
    try:
        for part in path.split("/") if path else ():
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=at)
            inner = os.open(part, FOLDER, dir_fd=at)
            os.close(at)
            at = found = inner
    except OSError:
        found = None
    try:
        yield found
    finally:
        os.close(at)


def _there(above: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=above, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_folder(above: int, name: str) -> bool:
    try:
        os.close(os.open(name, FOLDER, dir_fd=above))
    except OSError:
        return False
    return True
