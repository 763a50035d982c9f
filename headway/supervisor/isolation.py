"""Uids of the roles: which isolation is in force, and why not more.

`Component.user` is the seam. All roles run under the supervisor's uid for now: a uid each also needs a folder each
(the broker's socket, the sealed store, the database), and an interpreter that other uids can reach.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Reason:
    what: str
    fix: str


def unreachable() -> Path | None:
    """The first folder above this interpreter that other uids may not enter; None where they reach it."""
    for path in (Path(sys.executable), Path(os.path.realpath(sys.executable))):
        for folder in reversed(path.parents):
            if not folder.stat().st_mode & 0o001:
                return folder
    return None


def shared_uid() -> Reason:
    """Why the roles share one uid here."""
    if os.geteuid() != 0:
        return Reason("only root can give each role its own", "Run the roles as services, each as its own user.")
    closed = unreachable()
    if closed is not None:
        return Reason(f"other uids cannot enter {closed}, where Python is", "Install Python outside private folders.")
    return Reason("the embedded stack gives out one uid", "Run the roles as services, each as its own user.")
