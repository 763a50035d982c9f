"""Looking for what a killed keeper left: others' processes are looked at, and let go of."""

from __future__ import annotations

import builtins
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from adapters.runtime.process import identity


def pidfds() -> int:
    links = (os.readlink(one) for one in Path("/proc/self/fd").iterdir() if one.is_symlink())
    return sum("pidfd" in link for link in links)


def test_what_may_not_be_looked_at_is_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host worker with a uid of its own may read few environments: each look kept a handle of every other process."""
    ours = subprocess.Popen(["sleep", "60"], env={"MARK": "ours"})
    others = subprocess.Popen(["sleep", "60"], env={"MARK": "ours"})
    real = builtins.open

    def refusing(path: Any, *words: Any, **more: Any) -> Any:
        if str(path).endswith("/environ") and str(path) != f"/proc/{ours.pid}/environ":
            raise PermissionError(13, "Permission denied", path)
        return real(path, *words, **more)

    try:
        monkeypatch.setattr(builtins, "open", refusing)
        before = pidfds()
        assert identity.kill_marked("MARK", "ours", 10.0)
        monkeypatch.undo()
        assert pidfds() == before
        assert ours.wait(10) == -9
        assert others.poll() is None
    finally:
        for one in (ours, others):
            one.kill()
            one.wait()
