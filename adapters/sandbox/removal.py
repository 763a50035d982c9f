"""Removing, handing over and measuring trees that strangers have written.

Everything goes by descriptors that follow no symlink, needs neither recursion nor a path longer than one name, and
holds for trees of any depth, modes without rights, and names that are not text.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


# What is being removed lies beside it under names that begin so, until it is gone.
REMOVING: Final = ".removing-"
_REMOVING: Final = re.compile(rf"(?:{re.escape(REMOVING)})+(.+?)(?:-\d+)+")


def removed_name(left: str) -> str:
    """Of what a killed process was removing, by the name of what it has left."""
    found = _REMOVING.fullmatch(left)
    return found[1] if found else left


def remove_tree(path: Path) -> None:
    """Remove `path` and all below it. Nothing may be writing there any more. A missing path is fine.

    Folders found inside are moved up beside the first one before they are emptied: the depth never passes two.
    """
    parent = os.open(path.parent, FOLDER)
    try:
        try:
            is_folder = stat.S_ISDIR(os.stat(path.name, dir_fd=parent, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return
        if not is_folder:
            os.unlink(path.name, dir_fd=parent)
            return
        waiting = [os.fsencode(path.name)]
        serial = 0
        while waiting:
            name = waiting.pop()
            with _opened(parent, name) as folder:
                for entry in os.listdir(folder):
                    raw = os.fsencode(entry)
                    try:
                        os.unlink(raw, dir_fd=folder)
                        continue
                    except (IsADirectoryError, PermissionError):
                        pass  # a folder: which error says so depends on the file system
                    while True:
                        serial += 1
                        moved = b"%s%s-%d" % (REMOVING.encode(), os.fsencode(path.name), serial)
                        if not _exists(parent, moved):
                            break
                    with contextlib.suppress(PermissionError):
                        # moving a folder writes to it (its ".." changes), which its owner may have forbidden himself
                        _allow(folder, raw)
                    os.rename(raw, moved, src_dir_fd=folder, dst_dir_fd=parent)
                    waiting.append(moved)
            os.rmdir(name, dir_fd=parent)
    finally:
        os.close(parent)


def hand_over(path: Path, uid: int, gid: int) -> None:
    """Give `path` and all below it to `uid` and `gid`; symlinks themselves, never what they lead to.

    A file of this process that has links elsewhere too keeps its owner. Nothing may be writing there. `path` itself
    comes last: whose it is says whether all of it was handed over.
    """
    here = os.geteuid()
    unseen: dict[tuple[int, int], int] = {}

    def give(name: bytes | str, info: os.stat_result, folder: int | None) -> None:
        if (info.st_uid, info.st_gid) == (uid, gid):
            return
        if info.st_uid == here and info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
            unseen[_identity(info)] = unseen.get(_identity(info), info.st_nlink) - 1
            if unseen[_identity(info)]:
                return
        os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)

    def folders_in(folder: int) -> list[str]:
        found = []
        with os.scandir(folder) as entries:
            for entry in entries:
                give(entry.name, entry.stat(follow_symlinks=False), folder)
                if entry.is_dir(follow_symlinks=False):
                    found.append(entry.name)
        return found

    top = path.lstat()
    if not stat.S_ISDIR(top.st_mode):
        return give(os.fsencode(path), top, None)
    at = os.open(path, FOLDER)
    try:
        above = [(_identity(os.fstat(at)), folders_in(at))]
        while above:
            if above[-1][1]:
                at = _step(at, above[-1][1].pop())
                above.append((_identity(os.fstat(at)), folders_in(at)))
            elif above.pop() and above:
                at = _step(at, "..")
                if _identity(os.fstat(at)) != above[-1][0]:
                    raise OSError(errno.ESTALE, "a folder was moved meanwhile", str(path))
    finally:
        os.close(at)
    give(os.fsencode(path), top, None)


@dataclass(frozen=True)
class Usage:
    """`blocks` bytes allocated; `files` entries; `largest` apparent size; `blind`: something was unreadable."""

    blocks: int
    files: int
    largest: int
    blind: bool


def measure(paths: list[Path], most_files: int) -> Usage:
    """What lies below `paths`, hard links once; stops counting past `most_files`. Fit for trees that are changing."""
    blocks = files = largest = 0
    blind = False
    linked: set[tuple[int, int]] = set()
    waiting = [os.fsencode(path) for path in paths]
    while waiting and files <= most_files:
        here = waiting.pop()
        try:
            folder = os.open(here, FOLDER)
        except FileNotFoundError:
            continue
        except OSError:
            blind = True
            continue
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    try:
                        info = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue
                    files += 1
                    if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
                        key = (info.st_dev, info.st_ino)
                        if key in linked:
                            continue
                        linked.add(key)
                    blocks += info.st_blocks * 512
                    largest = max(largest, info.st_size)
                    if stat.S_ISDIR(info.st_mode):
                        waiting.append(here + b"/" + os.fsencode(entry.name))
        except OSError:
            blind = True
        finally:
            os.close(folder)
    return Usage(blocks, files, largest, blind)


def _identity(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino


def _step(folder: int, name: str) -> int:
    """From an open folder, which is closed, into one of that name."""
    inner = os.open(name, FOLDER, dir_fd=folder)
    os.close(folder)
    return inner


@contextlib.contextmanager
def _opened(parent: int, name: bytes) -> Iterator[int]:
    try:
        folder = os.open(name, FOLDER, dir_fd=parent)
    except PermissionError:
        _allow(parent, name)
        folder = os.open(name, FOLDER, dir_fd=parent)
    try:
        os.fchmod(folder, 0o700)
        yield folder
    finally:
        os.close(folder)


def _allow(parent: int, name: bytes) -> None:
    """Mode 0700 for a folder that its owner cannot open; never through a symlink."""
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{handle}", 0o700)
    finally:
        os.close(handle)


def _exists(parent: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
