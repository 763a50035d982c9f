"""Log files: kept below a size, without asking the writers to reopen them."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

LIMIT: Final = 16 << 20
KEEP: Final = 3


def rotate(path: Path, limit: int = LIMIT) -> bool:
    """Copy a log past `limit` bytes aside and empty it; its writer appends, so it goes on in the emptied file."""
    try:
        if path.stat().st_size <= limit:
            return False
    except OSError:
        return False
    copy = path.with_name(f"{path.name}.copy")
    try:
        shutil.copyfile(path, copy)
    except OSError:  # a full disk: it stays as it is until there is room
        copy.unlink(missing_ok=True)
        return False
    for number in range(KEEP - 1, 0, -1):
        with suppress(FileNotFoundError):
            path.with_name(f"{path.name}.{number}").replace(path.with_name(f"{path.name}.{number + 1}"))
    copy.replace(path.with_name(f"{path.name}.1"))
    os.truncate(path, 0)
    return True


def last_line(path: Path, limit: int = 300) -> str:
    """The last line of a log that says something, cut to `limit` characters."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.path.getsize(path) - 8192))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    except OSError:
        return ""
    return next((line[:limit] for line in reversed(lines) if line), "")
