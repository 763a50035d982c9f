"""An embedded stack of its own for a run: `headway up --detach` in a fresh folder, and `headway down` at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

HEADWAY = [sys.executable, "-m", "headway"]
UP_TIMEOUT = 300


@dataclass(frozen=True)
class Stack:
    data: Path
    repos: Path
    api: str
    sites_port: int
    temporal: str
    key: str
    up_seconds: float
    command: tuple[str, ...]

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        command: Sequence[str] = HEADWAY,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Stack:
        """`command` is the program under test; `env` comes on top of this process's environment.

        Raises CalledProcessError; the program says why on stderr."""
        data, repos = folder / "data", folder / "repos"
        repos.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        subprocess.run(
            [*command, "up", "--detach", "--data-dir", str(data), "--port", "0", "--local-repos", str(repos)],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=UP_TIMEOUT,
            cwd=cwd,
            env={**os.environ, **(env or {})},
        )
        took = time.perf_counter() - began
        found = json.loads((data / "endpoints.json").read_text())
        return cls(
            data=data,
            repos=repos,
            api=found["api"],
            sites_port=urlsplit(found["sites"]).port or 80,
            temporal=found["temporal"],
            key=(data / "admin.key").read_text().strip(),
            up_seconds=took,
            command=tuple(command),
        )

    def stop(self) -> None:
        subprocess.run(
            [*self.command, "down", "--data-dir", str(self.data)], check=True, stdin=subprocess.DEVNULL, timeout=120
        )
