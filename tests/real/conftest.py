"""A stack of its own, through its public face only, for sites that other people published."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from bench.client import Caller
from bench.stack import Stack

Commit = Callable[[str, Mapping[str, str | bytes]], str]


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    # A short path: unix sockets below it have at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="hwr-") as folder:
        # A company's mirror of the package indexes mostly has a private address. Builds run at low weight: on a machine
        # that is full, a large project takes more than the quarter of an hour that they have as a rule.
        env = {"HEADWAY_EGRESS_PRIVATE_OK": '["indexes"]', "HEADWAY_BUILD_TIMEOUT": "3600"}
        made = Stack.start(Path(folder), env=env)
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture(scope="session")
def caller(stack: Stack) -> Iterator[Caller]:
    made = Caller(stack)
    yield made
    made.http.close()


@pytest.fixture(scope="session")
def commit(stack: Stack) -> Commit:
    """`commit(name, files)`: a repository of these files (added to what is there), committed; returns its address."""

    def make(name: str, files: Mapping[str, str | bytes]) -> str:
        folder = stack.repos / name
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(text.encode() if isinstance(text, str) else text)
        git = ["git", "-C", str(folder), "-c", "user.name=Test", "-c", "user.email=test@example.test"]
        for step in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "First"]):
            subprocess.run([*git, *step], check=True, stdin=subprocess.DEVNULL)
        return folder.as_uri()

    return make


@pytest.fixture(scope="session")
def npm() -> str:
    """npm, where Node is here."""
    path = shutil.which("npm")
    if path is None:
        pytest.skip("no npm on PATH")
    return path
