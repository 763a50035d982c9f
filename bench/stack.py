"""An embedded stack of its own for a run: `headway up --detach` in a fresh folder, and `headway down` at the end."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

HEADWAY = [sys.executable, "-m", "headway"]
UP_TIMEOUT = 120


@dataclass(frozen=True)
class Stack:
    data: Path
    repos: Path
    api: str
    sites_port: int
    temporal: str
    key: str
    up_seconds: float

    @classmethod
    def start(cls, folder: Path) -> Stack:
        """Raises CalledProcessError with the command's own sentence on stderr."""
        data, repos = folder / "data", folder / "repos"
        repos.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        subprocess.run(
            [*HEADWAY, "up", "--detach", "--data-dir", str(data), "--port", "0", "--local-repos", str(repos)],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=UP_TIMEOUT,
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
        )

    def stop(self) -> None:
        subprocess.run(
            [*HEADWAY, "down", "--data-dir", str(self.data)], check=True, stdin=subprocess.DEVNULL, timeout=120
        )
