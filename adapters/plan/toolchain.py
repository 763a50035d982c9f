"""Which programs builds find, and their versions: looked up where a sandbox looks, not on this process's own PATH."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from uv import find_uv_bin

from adapters.sandbox.argv import SEARCH

ASK_SECONDS: Final = 30
_ASK: Final = {"go": ["version"], "python3": ["-V"]}
_VERSION = re.compile(r"\d+(?:\.\d+)+[\w.+-]*")


class Toolchain:
    """`toolchain(name)` is the program's version, None where builds do not find it. Thread-safe.

    Asked once as long as the file stays the same: an upgrade under a running builder is seen. `extra` are programs
    that builds are given beside the system's, by name.
    """

    def __init__(self, search: str = SEARCH, extra: dict[str, Path] | None = None) -> None:
        self._search = search
        self._extra = extra or {}
        self._known: dict[tuple[str, int], str | None] = {}
        self._asking = threading.Lock()

    def __call__(self, name: str) -> str | None:
        path = self._extra.get(name) or shutil.which(name, path=self._search)
        if path is None:
            return None
        try:
            key = (str(path), Path(path).stat().st_mtime_ns)
        except OSError:
            return None
        with self._asking:
            if key not in self._known:
                self._known[key] = _ask(name, str(path), self._search)
            return self._known[key]


@dataclass(frozen=True)
class Given:
    """Programs that builds are given: `folder` holds them, to be shown to a sandbox; None where there are none."""

    folder: Path | None
    programs: dict[str, Path]


def given() -> dict[str, Path]:
    """Programs that builds are given beside the system's, where they lie now."""
    try:
        return {"uv": Path(find_uv_bin())}
    except FileNotFoundError:
        return {}


def lay_out(folder: Path) -> Given:
    """Put the `uv` that was installed with this program into a folder of its own; one that is there stays if it is it.

    A copy, or a second name: a sandbox is shown this folder and not the whole environment that uv lies in.
    """
    own = given().get("uv")
    if own is None:
        return Given(None, {})
    folder.mkdir(parents=True, exist_ok=True)
    target, status = folder / "uv", own.stat()
    if not target.is_file() or (target.stat().st_size, target.stat().st_mtime_ns) != (
        status.st_size,
        status.st_mtime_ns,
    ):
        fresh = folder / f".uv-{os.getpid()}-{threading.get_ident()}"
        shutil.copy2(own, fresh)
        fresh.replace(target)
    return Given(folder, {"uv": target})


def _ask(name: str, path: str, search: str) -> str | None:
    words = [path, *_ASK.get(name, ["--version"])]
    try:
        done = subprocess.run(
            words,
            cwd="/",
            env={"PATH": search, "HOME": "/nonexistent", "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ASK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    match = _VERSION.search(done.stdout or done.stderr) if done.returncode == 0 else None
    return match[0] if match else None
