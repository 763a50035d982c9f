"""How a role tells its supervisor that it can work: it makes the file that `HEADWAY_READY_FILE` names.

A file rather than a pipe, because the supervisor may have died and been replaced in between.
"""

from __future__ import annotations

import contextlib
import gc
import os
from pathlib import Path
from typing import Final

VARIABLE: Final = "HEADWAY_READY_FILE"
# Objects made and not freed again until somebody looks for garbage among them; what a request makes has no cycles.
YOUNG: Final = 20_000


def announce() -> None:
    """Say that this process can work now, where somebody asked.

    What it has loaded by then lives as long as it does: to look for garbage there takes a tenth of a second, in the
    middle of somebody's request.
    """
    gc.freeze()
    gc.set_threshold(YOUNG)
    named = os.environ.get(VARIABLE)
    if named:
        with contextlib.suppress(OSError):
            Path(named).touch(mode=0o600)
