"""A uid for each environment, kept as long as the state folder: its volumes belong to it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from pathlib import Path

from adapters.sandbox.slots import is_mapped
from headway.errors import HeadwayError

# Above what distributions give out (systemd.io/UIDS-GIDS), below those of builds, and below 2^31.
FIRST, BLOCKS, EACH = 1_300_000_000, 500, 1_000_000
SMALL_FIRST, SMALL_EACH = 58_000, 7_000  # where a container maps only 65,536 uids


def uid_of(state: Path, env_id: str) -> int:
    """The environment's uid (and gid), the same in every process on this state folder."""
    lock = os.open(state / "uids.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = state / "uids.json"
        known: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
        if env_id not in known:
            first, each = uid_range(state)
            taken = set(known.values())
            free = next((uid for uid in range(first, first + each) if uid not in taken), None)
            if free is None:
                raise HeadwayError("runtime.unavailable", f"all {each} uids for environments are given out")
            known[env_id] = free
            fresh = path.with_suffix(".new")
            with fresh.open("w") as file:
                json.dump(known, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        return known[env_id]
    finally:
        os.close(lock)


def uid_range(state: Path) -> tuple[int, int]:
    """The first of the uids of environments, and their number."""
    seed = int(hashlib.sha256(os.fsencode(state)).hexdigest()[:10], 16)
    first = FIRST + seed % BLOCKS * EACH
    return (first, EACH) if is_mapped(first, EACH) else (SMALL_FIRST, SMALL_EACH)
