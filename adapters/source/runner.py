"""What fetching and building need of a sandbox: the real one, or a test's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from adapters.sandbox.command import Command, Outcome

OnOutput = Callable[[str, bytes], None]
Canceled = Callable[[], bool]


class Runner(Protocol):
    """`on_output("stdout"|"stderr", bytes)` gets chunks as they come, in any cut; `canceled()` is asked often."""

    def run(self, command: Command, on_output: OnOutput, canceled: Canceled) -> Outcome: ...

    def workspace(self) -> AbstractContextManager[Path]:
        """An empty folder that the sandbox can write, removed afterwards."""
        ...
