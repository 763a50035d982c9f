"""The standby: a process that waits for the supervisor's lock and takes over when it falls free."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

from headway.supervisor import identity
from headway.supervisor.folder import Folder, read_record, write_json
from headway.supervisor.processes import Process

RESTART_AFTER = 1.0
TWIN = "twin"


def command(folder: Folder, mode: str, *more: str) -> list[str]:
    """The argv of a supervisor process."""
    return [sys.executable, "-P", "-m", "headway.supervisor", mode, str(folder.root), *more]


class Twin:
    """The standby of a running supervisor."""

    def __init__(self, folder: Folder, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self.process: Process | None = None
        self.due = 0.0

    def keep(self) -> None:
        """Start it, or start it again a second after its death."""
        if self.process is not None and self.process.dead():
            self.process.bury()
            self.process, self.due = None, time.monotonic() + RESTART_AFTER
        if self.process is None and time.monotonic() >= self.due:
            try:
                self._start()
            except OSError:  # no process or descriptor is left: whoever supervises must not end for want of a standby
                self.due = time.monotonic() + RESTART_AFTER

    def _start(self) -> None:
        with self._folder.log("supervisor").open("ab") as log:
            child = subprocess.Popen(
                command(self._folder, TWIN),
                env=self._environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        with suppress(OSError):
            write_json(self._folder.record(TWIN), identity.describe(child.pid))
        self.process = Process(TWIN, child.pid, os.pidfd_open(child.pid), "", child)

    def end(self) -> None:
        """End it before the lock falls free. It holds nothing, so it is killed outright."""
        if self.process is not None:
            self.process.signal(signal.SIGKILL)
            self.process.dead(5.0)
            self.process.bury()
            self.process = None
        end_stray(self._folder)


def end_stray(folder: Folder) -> None:
    """End a standby that an earlier supervisor left."""
    record = read_record(folder.record(TWIN))
    if record.get("pid") != os.getpid():
        identity.send(record, signal.SIGKILL)
