"""Files that root writes into a role's folder belong to the role: a tool of the operator's must not shut it out."""

from __future__ import annotations

import os
from pathlib import Path


def give_to_owner_of_folder(handle: int, path: Path) -> None:
    """Give the open file that is about to be `path` to who owns the folder, where this process is root."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.fchown(handle, owner.st_uid, owner.st_gid)
