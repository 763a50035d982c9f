"""A `Procfile`: one line per process, `name: command`; `web` serves, `release` runs once before the switch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from adapters.artifact.folder import Folder
from adapters.artifact.run_fields import check_command, check_processes
from adapters.plan.part import read_text
from headway.errors import HeadwayError

FILE: Final = "Procfile"
_LINE = re.compile(r"([A-Za-z0-9_-]+):\s*(.+)")


@dataclass(frozen=True)
class Procfile:
    web: str | None
    release: str | None
    processes: dict[str, str]


def read_procfile(root: Folder) -> Procfile | None:
    """Raises build.detect_failed, naming the line."""
    text = read_text(root, FILE, 256 << 10)
    if text is None:
        return None
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise _fail(f"line {number}", "is not `name: command`")
        if match[1].lower() in found:
            raise _fail(f"line {number}", f"names {match[1]} again")
        found[match[1].lower()] = check_command(match[2].strip(), f"line {number}", _fail)
    web, release = found.pop("web", None), found.pop("release", None)
    return Procfile(web, release, check_processes(found, "processes", _fail))


def _fail(key: str, why: str) -> HeadwayError:
    return HeadwayError("build.detect_failed", f"{FILE}: {key} {why}.", file=FILE)
