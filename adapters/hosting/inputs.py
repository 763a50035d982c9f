"""What a one-off command is given, fetched to its host before it begins: a file of the host's own."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from adapters.hosting.disk import check_floor
from headway.errors import HeadwayError

# Longer than any command may take: what lies there for so long was left by a worker that died.
LEFT_SECONDS: Final = 7200.0


def fetch_input(
    path: Path, size: int, ask: Callable[[int], str], check: Callable[[], None], floor: int = 512 << 20
) -> None:
    """Bring `path` to `size` bytes; what is there of it stays. `ask(start)` gives the next bytes in base64.

    Raises roll.disk_floor, what `check` and `ask` raise, and input.not_found where the rest of it is gone.
    """
    path.parent.mkdir(mode=0o700, exist_ok=True)
    _forget_left(path.parent)
    # Whoever runs it reads it, under whatever uid; into the folder nobody gets.
    path.touch(mode=0o644)
    with path.open("r+b") as file:
        at = file.seek(0, 2)
        check_floor(path.parent, size - at, floor)
        while at < size:
            check()
            data = base64.b64decode(ask(at))
            if not data:
                raise HeadwayError("input.not_found", f"Of the command's input {size - at} bytes are gone.")
            file.write(data)
            at += len(data)
    ask(at)  # which says that all of it is here


def _forget_left(folder: Path) -> None:
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > LEFT_SECONDS:
                path.unlink()
