"""Where the folders of mounts lie: beside one another, `data` and `data%2Fuploads`.

Never within one another: what is in a mount is its app's, and a link there would lead the mount of a later release to
any folder of the host.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Final

from headway.errors import HeadwayError

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NONE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def volume_of(home: Path, name: str) -> Path:
    """The folder of a mount, which need not be there yet. `home` is the environment's.

    Raises runtime.unavailable where one of before cannot be moved there.
    """
    place = home / name.replace("%", "%25").replace("/", "%2F")
    if "/" in name and not os.path.lexists(place):
        try:
            _take_over(home, name.split("/"), place)
        except OSError as error:
            if error.errno not in _NONE:
                raise HeadwayError("runtime.unavailable", f"The mount {name} cannot be moved: {error}") from error
    return place


def _take_over(home: Path, steps: list[str], place: Path) -> None:
    """A folder that lies where earlier versions had it. A link leads there: what runs is started again by that path."""
    with contextlib.ExitStack() as stack:
        at = _opened(stack, os.open(home, _FOLDER))
        for step in steps[:-1]:
            at = _opened(stack, os.open(step, _FOLDER, dir_fd=at))
        if not stat.S_ISDIR(os.stat(steps[-1], dir_fd=at, follow_symlinks=False).st_mode):
            return
        os.rename(steps[-1], place, src_dir_fd=at)
        if place.is_symlink():  # put there since the look
            place.unlink()
            return
        os.symlink(place, steps[-1], dir_fd=at)


def _opened(stack: contextlib.ExitStack, descriptor: int) -> int:
    stack.callback(os.close, descriptor)
    return descriptor
