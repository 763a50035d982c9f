"""Where the rooms are: beside `headway/` in a checkout, under `headway/_app/` in an installed wheel.

The wheel exposes one name, `headway`; inside Headway's own processes the rooms are imported by their bare names
(docs/decisions/0001). `enter` goes first in every process of ours, before any room is imported.
"""

from __future__ import annotations

import sys
from pathlib import Path


def app_root() -> Path:
    """The folder that holds the rooms."""
    package = Path(__file__).resolve().parent
    carried = package / "_app"
    return carried if carried.is_dir() else package.parent


def enter() -> Path:
    """Put the rooms first on `sys.path`, so that no other distribution's `api` or `workflows` is found before them.

    Every process of ours comes by here first, so what none of them needs is left out here.
    """
    # Libraries' own extras, which do without where they are not there: a command line, and colours of templates.
    for extra in ("httpx._main", "mako.ext.pygmentplugin"):
        sys.modules.setdefault(extra, None)  # type: ignore[arg-type]
    root = app_root()
    sys.path[:] = [str(root), *(entry for entry in sys.path if entry != str(root))]
    return root


def python_path() -> str:
    """Where our own processes find the package `headway`, installed or not."""
    return str(Path(__file__).resolve().parent.parent)
