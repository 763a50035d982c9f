"""A site's repository: 100 files of which each commit changes ten. The same bytes in every run."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

FILES = 100
CHANGED = 10
WORDS_PER_FILE = 1500
SEED = 20240917
WORDS = ("harbour", "lantern", "orchard", "granite", "meadow", "copper", "winter", "ferry", "willow", "signal")


class Repository:
    def __init__(self, folder: Path, *, files: int = FILES) -> None:
        self.folder = folder
        self.files = files
        self.chance = random.Random(SEED)  # noqa: S311 - text, not secrets
        self.commits = 0
        folder.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")
        for number in range(1, files):
            self._write(number)

    @property
    def url(self) -> str:
        return self.folder.as_uri()

    def commit(self) -> str:
        """Change ten files, the front page among them; returns the text that only the new front page holds."""
        self.commits += 1
        marker = f"edition {self.commits} of {self.folder.name}"
        (self.folder / "index.html").write_text(f"<!doctype html>\n<title>Bench</title>\n<h1>{marker}</h1>\n")
        for number in self.chance.sample(range(1, self.files), min(CHANGED, self.files) - 1):
            self._write(number)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", marker)
        return marker

    def git(self, *arguments: str) -> None:
        done = self.start_git(*arguments).wait()
        if done != 0:
            raise subprocess.CalledProcessError(done, ["git", *arguments])

    def start_git(self, *arguments: str, told: int | None = None) -> subprocess.Popen[bytes]:
        """`told` is where git's words go (None: to this process's own stderr)."""
        who = [
            "-c",
            "user.name=Bench",
            "-c",
            "user.email=bench@example.test",
            "-c",
            "commit.gpgsign=false",
            "-c",
            "gc.auto=0",
        ]
        return subprocess.Popen(
            ["git", "-C", str(self.folder), *who, *arguments],
            stdin=subprocess.DEVNULL,
            stderr=told,
            env={**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull},
        )

    def _write(self, number: int) -> None:
        text = " ".join(self.chance.choice(WORDS) for _ in range(WORDS_PER_FILE))
        page = self.folder / f"part{number % 10}" / f"page{number}.html"
        page.parent.mkdir(exist_ok=True)
        page.write_text(f"<!doctype html>\n<p>{text}</p>\n")


APP = """
import os
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server


def app(environ, answer):
    answer("200 OK", [("Content-Type", "text/plain")])
    return [b"MARKER"]


class Quiet(WSGIRequestHandler):
    def log_message(self, *words):
        pass


class Server(WSGIServer):
    request_queue_size = 128


make_server("127.0.0.1", int(os.environ["PORT"]), app, server_class=Server, handler_class=Quiet).serve_forever()
"""


class Service(Repository):
    """A one-file WSGI app of the standard library: what is measured is the platform, not a framework's imports.

    As many may wait to be accepted as with servers that are used: of more than five the kernel has the rest try again
    after a second.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, files=1)
        (folder / "headway.toml").write_text('[build]\ncommand = ""\n\n[run]\ncommand = "exec python3 app.py"\n')

    def commit(self) -> str:
        self.commits += 1
        marker = f"edition {self.commits} of {self.folder.name}"
        (self.folder / "app.py").write_text(APP.replace("MARKER", marker))
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", marker)
        return marker
