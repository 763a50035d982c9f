"""Stands in for what opens sealed configurations: the file is JSON, the key file must be there."""

from __future__ import annotations

import json
from pathlib import Path

from headway.errors import HeadwayError


def open_plain(sealed: Path, key_file: Path) -> dict[str, str]:
    if not key_file.is_file():
        raise HeadwayError("runtime.unavailable", "the key is not there")
    found: dict[str, str] = json.loads(sealed.read_text())
    return found
