"""A site's repository whose build takes as long as a test says, or until the test lets it go on."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
from pathlib import Path

HELD = itertools.count(10_001)
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

    def commit_held(self, text: str) -> list[str]:
        """The same, and the build waits for `let_go` of what is returned: no clock decides which build ends first."""
        seconds = next(HELD)
        self.commit(text, seconds=seconds)
        return ["sleep", str(seconds)]

    def git(self, *words: str) -> None:
        who = ["-c", "user.name=Test", "-c", "user.email=test@example.test"]
        env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        subprocess.run(["git", "-C", str(self.folder), *who, *words], check=True, stdin=subprocess.DEVNULL, env=env)


def running(argv: list[str]) -> list[int]:
    """The processes with this command line, in whatever namespace: those of a builder's walls are seen from outside."""
    wanted = b"\0".join(word.encode() for word in argv) + b"\0"
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and (entry / "cmdline").read_bytes() == wanted:
                found.append(int(entry.name))
    return found


def let_go(held: list[str]) -> None:
    """Ends the wait of a held build, whose command goes on after it."""
    for pid in running(held):
        os.kill(pid, signal.SIGKILL)
