"""A folder that a stranger filled, read without ever following one of its symbolic links.

Every step is an openat of one name with O_NOFOLLOW, so that no name, and no exchange of a name while we look, leads
out of the folder. O_NONBLOCK keeps a named pipe from holding the reader.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Final

from adapters.artifact.paths import can_be_told, escaped
from headway.errors import HeadwayError

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Folder:
    """An open folder; `with Folder(path) as folder`. The path itself is trusted, what lies in it is not."""

    def __init__(self, path: Path | int) -> None:
        self.fd = path if isinstance(path, int) else os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        os.close(self.fd)

    def folder(self, path: str) -> Folder | None:
        """The folder at a relative path (`""` and `.`: this one), None where there is none.

        Raises build.output_invalid where a symbolic link or a file is in the way.
        """
        at = os.dup(self.fd)
        for name in _names(path):
            try:
                inner = os.open(name, _FOLDER, dir_fd=at)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return None
                raise _unreadable(path, error) from error
            finally:
                os.close(at)
            at = inner
        return Folder(at)

    def open(self, path: str) -> int:
        """A descriptor of the regular file at a relative path. Raises build.output_invalid."""
        above, _, name = path.rpartition("/")
        _names(path)
        folder = self.folder(above)
        if folder is None:
            raise HeadwayError("build.output_invalid", f"{escaped(path)} is gone.")
        with folder:
            try:
                fd = os.open(name, _FILE, dir_fd=folder.fd)
            except OSError as error:
                raise _unreadable(path, error) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise HeadwayError("build.output_invalid", f"{escaped(path)} is not a regular file.")
        return fd

    def read(self, path: str, max_bytes: int) -> bytes | None:
        """A small file, or None where there is none. Raises build.output_invalid where it is no plain small file."""
        above, _, name = path.rpartition("/")
        folder = self.folder(above)
        if folder is None:
            return None
        with folder:
            if not folder.has(name):
                return None
            with os.fdopen(folder.open(name), "rb") as file:
                raw = file.read(max_bytes + 1)
        if len(raw) > max_bytes:
            raise HeadwayError("build.output_invalid", f"{escaped(path)} is larger than {max_bytes} bytes.")
        return raw

    def has(self, name: str) -> bool:
        """Whether there is anything of that name, a dangling link included."""
        try:
            os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except (OSError, ValueError):
            return False
        return True

    def names(self) -> list[str]:
        """What lies in it, sorted; foreign bytes as surrogates."""
        return sorted(os.listdir(self.fd))


def _names(path: str) -> list[str]:
    names = [name for name in path.split("/") if name not in ("", ".")]
    if not can_be_told(path):
        raise HeadwayError("build.output_invalid", f"{escaped(path)} is no path.")
    if ".." in names:
        raise HeadwayError("build.output_invalid", f"{escaped(path)} leaves the folder.")
    return names


def _unreadable(path: str, error: OSError) -> HeadwayError:
    why = {
        errno.ELOOP: "is a symbolic link",
        errno.ENOTDIR: "is not a folder, or a symbolic link leads to it",
        errno.ENOENT: "is gone",
        errno.EACCES: "cannot be read",
        errno.ENXIO: "is not a regular file",
    }.get(error.errno or 0, f"cannot be read ({errno.errorcode.get(error.errno or 0, 'unknown')})")
    return HeadwayError("build.output_invalid", f"{escaped(path)} {why}.", path=escaped(path))
