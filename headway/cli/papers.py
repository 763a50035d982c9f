"""The papers of a machine that is let in: a folder with its credential and what it pins, to be carried there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from headway.cli.output import say

BROKER = "broker.pem"
SHOWN_ALREADY = "An earlier request with this Idempotency-Key had the credential: make a new one with --renew."


@contextlib.contextmanager
def folder(path: Path, credential: str, *, renew: bool) -> Iterator[None]:
    """Where they are to be: there before anybody makes a credential that is shown once, and gone again if none came.

    Raises click.UsageError where the file `credential` is there already.
    """
    if (path / credential).exists() and not renew:
        raise click.UsageError(f"{path / credential} is there already: choose another folder.")
    fresh = not path.exists()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(path, os.W_OK | os.X_OK):
        raise click.UsageError(f"{path} cannot be written: choose another folder.")
    try:
        yield
    except BaseException:
        if fresh:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def write(path: Path, files: Mapping[str, str | None]) -> int:
    """Each readable by its owner alone from its first byte on; how many. What is None is left out."""
    there = {Path(name).name: text for name, text in files.items() if text}
    for name, text in there.items():
        (path / name).unlink(missing_ok=True)
        with os.fdopen(os.open(path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    return len(there)


def warn_without_broker(broker_root: str | None) -> None:
    if not broker_root:
        say("The broker listens to no other machine yet: set HEADWAY_BROKER_LISTEN, and add --renew then.")
