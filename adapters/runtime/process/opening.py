"""The frozen configuration, opened in a process of its own: what decrypts is heavy, and leaves with its memory."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

from adapters.redaction import SHOWN, hidden_of
from adapters.runtime.process.recipe import Opener

SECONDS = 30
# Request on stdin, answer on stdout: neither a path nor a value is an argument.
PROGRAM = """
import importlib, json, sys
from pathlib import Path
asked = json.load(sys.stdin)
sys.path[:0] = asked["paths"]
try:
    module, _, name = asked["function"].partition(":")
    values = getattr(importlib.import_module(module), name)(Path(asked["sealed"]), Path(asked["key_file"]))
    answer = {"values": {str(key): str(value) for key, value in values.items()}}
except Exception as error:
    from headway.errors import HeadwayError
    answer = {"error": error.message if isinstance(error, HeadwayError) else type(error).__name__}
json.dump(answer, sys.stdout)
"""


class CannotOpen(Exception):
    """The message is fit for a log: it holds no value."""


@dataclass(frozen=True)
class Opened:
    """The variables to add, and those of them whose values stand in no log."""

    values: dict[str, str]
    hidden: dict[str, str]


def open_configuration(opener: Opener) -> Opened:
    """Errors: CannotOpen."""
    asked = {
        "paths": list(opener.paths),
        "function": opener.function,
        "sealed": opener.sealed,
        "key_file": opener.key_file,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", PROGRAM],
            input=json.dumps(asked).encode(),
            capture_output=True,
            env={},
            timeout=SECONDS,
            check=False,
        )
        answer = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise CannotOpen(f"the sealed configuration cannot be opened: {type(error).__name__}") from None
    if "error" in answer:
        raise CannotOpen(f"the sealed configuration cannot be opened: {answer['error']}")
    values: dict[str, str] = answer["values"]
    bad = next((key for key in values if not key or "=" in key or "\0" in key + values[key]), None)
    if bad is not None:
        raise CannotOpen(f"{bad!r} is not a usable environment variable")
    return Opened({name: value for name, value in values.items() if name != SHOWN}, hidden_of(values))
