"""The disk floor: a roll is refused before it starts to write, not when the disk is full."""

from __future__ import annotations

import os
from pathlib import Path

from headway.errors import HeadwayError


def free_bytes(folder: Path) -> int:
    """What this process may still write there."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def check_floor(folder: Path, needed: int, floor: int) -> None:
    """Raises roll.disk_floor (retryable) where writing `needed` bytes would leave less than `floor` free."""
    free = free_bytes(folder)
    if free - needed < floor:
        raise HeadwayError(
            "roll.disk_floor",
            f"The release needs {needed >> 20} MiB, {free >> 20} MiB are free, and {floor >> 20} MiB must stay so.",
        )
