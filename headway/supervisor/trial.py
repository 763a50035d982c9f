"""Whether the roles can have their uids here: tried with real processes, and the answer kept while nothing changes.

A trial costs more than a second of processor time. A refusal is never kept: who mends what stood in the way is
believed at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from headway.supervisor import accounts, identity
from headway.supervisor.accounts import Accounts
from headway.supervisor.folder import Folder

# What an administrator turns to allow namespaces, or not to.
_SWITCHES: Final = (
    "/proc/sys/user/max_user_namespaces",
    "/proc/sys/kernel/unprivileged_userns_clone",
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
)


def obstacle(folder: Folder, wanted: Accounts) -> str:
    """As `accounts.obstacle`; not tried again in the circumstances in which it went well the last time."""
    note, now = folder.path("run", "uids-tried"), circumstances(wanted)
    with suppress(OSError, ValueError):
        if note.read_text() == now:
            return ""
    said = accounts.obstacle(wanted)
    if not said:
        with suppress(OSError):
            note.write_text(now)
    return said


def circumstances(wanted: Accounts) -> str:
    """A digest of what decides the trial: the kernel, our rights, Python, and who may enter which folder."""
    # The data folder's own mode is what a stack makes of it, after the trial.
    paths = [Path(path) for path in (*wanted.reach, *wanted.repositories, *wanted.signing, sys.executable)] + [
        wanted.folder.root.parent
    ]
    every = {step for path in paths for way in (path, path.resolve()) for step in (way, *way.parents)}
    packages = [Path(sysconfig.get_path("purelib")), Path(sys.executable).resolve()]
    facts = {
        "boot": identity.boot_id(),
        "base": wanted.base,
        "low_ports": wanted.low_ports,
        "rights": [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Cap")],
        "switches": {name: Path(name).read_text() for name in _SWITCHES if os.path.exists(name)},
        "ways": sorted(_ways(every)),
        "packages": [(str(path), path.stat().st_mtime_ns) for path in packages if path.exists()],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _ways(paths: set[Path]) -> Iterator[tuple[str, list[int]]]:
    for path in paths:
        try:
            info = path.lstat()
        except OSError:
            yield str(path), []
        else:
            yield str(path), [info.st_ino, info.st_mode, info.st_uid, info.st_gid]
