"""A site's repository whose build can be made to wait for a file."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

CONFIG = '[build]\ncommand = "{command}"\noutput = "site"\n'


class Repository:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")

    def commit(self, text: str, *, seconds: float = 0, branch: str = "main") -> None:
        """One page with this text, built by a command that takes that long."""
        command = f"sleep {seconds}; mkdir -p site; cp page.html site/index.html"
        (self.folder / "headway.toml").write_text(CONFIG.format(command=command))
        (self.folder / "page.html").write_text(f"<!doctype html>\n<title>{text}</title>\n<h1>{text}</h1>\n")
        self.git("add", ".")
        self.git("commit", "-q", "--allow-empty", "-m", text)
        if branch != "main":
            self.git("branch", "-f", branch)

    def git(self, *words: str) -> None:
        who = ["-c", "user.name=Test", "-c", "user.email=test@example.test"]
        env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        subprocess.run(["git", "-C", str(self.folder), *who, *words], check=True, stdin=subprocess.DEVNULL, env=env)
