"""A release tree with places for volumes that it lacks: a folder of the host that stands around the tree's own."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from adapters.runtime.process.view import release
from adapters.sandbox.argv import WORKSPACE, Bind

Shown = list[tuple[Path, str]]


def lay(root: Path, targets: Sequence[str], folder: Path) -> Shown:
    """What to show read-only, and where: the tree itself, or the frame and in it every part of the tree.

    `targets` are where volumes will be. `folder` is made anew where a frame is needed. Raises runtime.spec_invalid.
    """
    pieces = list(release(root, root, targets))
    if all(isinstance(one, Bind) and one.target == WORKSPACE for one in pieces):
        return [(root, WORKSPACE)]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shown: Shown = [(folder, WORKSPACE)]
    for one in pieces:
        if isinstance(one, Bind):
            place = folder / one.target.removeprefix(WORKSPACE).lstrip("/")
            if Path(one.source).is_dir():
                place.mkdir(exist_ok=True)
            else:
                place.touch()
            shown.append((Path(one.source), one.target))
        elif one[0] == "--dir":
            (folder / one[1].removeprefix(WORKSPACE).lstrip("/")).mkdir(parents=True, exist_ok=True)
        else:
            (folder / one[2].removeprefix(WORKSPACE).lstrip("/")).symlink_to(one[1])
    return shown
