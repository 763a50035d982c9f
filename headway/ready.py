"""How a role tells its supervisor that it can work: it makes the file that `HEADWAY_READY_FILE` names.

A file rather than a pipe, because the supervisor may have died and been replaced in between.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

VARIABLE: Final = "HEADWAY_READY_FILE"


def announce() -> None:
    """Say that this process can work now; does nothing where nobody asked."""
    named = os.environ.get(VARIABLE)
    if named:
        with contextlib.suppress(OSError):
            Path(named).touch(mode=0o600)
