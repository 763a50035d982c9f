"""Apps outlive every process of ours but the end of the stack: `down` stops them, too."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from headway._launch import python_path
from headway.supervisor.becoming import User
from headway.supervisor.folder import Folder
from headway.supervisor.plan import Component
from headway.supervisor.processes import becoming

PATIENCE = 120.0


def coming_back(folder: Folder) -> int:
    """How many apps should serve here, and are not there yet. By what lies in the folder alone."""
    live = (path.parent for path in folder.path("host", "env").glob("*/current/service"))
    return sum(not _is_open(release / "sock.0") for release in live)


def _is_open(endpoint: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(0.5)  # one that nobody accepts from fills up, and would be waited at for ever
        try:
            one.connect(os.path.realpath(endpoint))
        except OSError:
            return False
    return True


def keeper_of(components: Iterable[Component]) -> User | None:
    """Under which uid apps are kept; None: the supervisor's."""
    return next((one.user for one in components if one.name == "host"), None)


def stop_apps(folder: Folder, say: Callable[[str], None], user: User | None) -> None:
    """Stop every instance of this host. They start again with the next `up`. By a process of its own: this is a light
    one, which knows nothing of instances; and one of the host worker's uid, as what it goes by is that one's to write.
    """
    if not any(folder.path("host", "run", "instances").glob("*/*")):
        return
    env = {"HEADWAY_DATA_DIR": str(folder.root), "PYTHONPATH": python_path(), "PATH": os.environ.get("PATH", "")}
    try:
        done = subprocess.run(
            [*(becoming(user) if user is not None else ()), sys.executable, "-P", "-m", "headway", "apps", "stop"],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        say(f"  apps       may still run: {type(error).__name__}")
        return
    if done.returncode != 0:
        say(f"  apps       may still run: {(done.stderr or done.stdout).strip()[-200:]}")
