"""What the supervisor tells people: on the terminal or pipe of the `up` that started it, and always in its log."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from headway.supervisor.logs import rotate


class Progress:
    """Lines for people. `descriptor` is where the caller of `up` reads; None for a standby that took over."""

    def __init__(self, log: Path, descriptor: int | None, *, detached: bool = True) -> None:
        rotate(log)
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._caller = descriptor
        self._detached = detached

    def say(self, line: str) -> None:
        """A reader that has gone away is no reason to stop."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        with suppress(OSError):
            os.write(self._log, f"{stamp}Z [{os.getpid()}] {line}\n".encode())
        if self._caller is not None:
            try:
                os.write(self._caller, f"{line}\n".encode())
            except OSError:
                self._caller = None

    def complain(self, sentence: str) -> None:
        """Why it failed: on standard error where `up` runs in the foreground, else through its caller's pipe."""
        if self._detached:
            self.say(sentence)
        else:
            with suppress(OSError):
                os.write(2, f"{sentence}\n".encode())

    def done(self) -> None:
        """Let go of the caller of `up --detach`: the end of its pipe says that all is done."""
        if self._detached and self._caller is not None:
            os.close(self._caller)
            self._caller = None
