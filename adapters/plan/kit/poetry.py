"""A poetry.lock as a file of requirements with hashes: `python3 poetry.py LOCK OUTPUT`; the main group only."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any


def main(lock: str, output: str) -> None:
    document = tomllib.loads(Path(lock).read_text(encoding="utf-8"))
    packages = document.get("package", [])
    Path(output).write_text("".join(requirement(one, document) for one in packages if is_wanted(one)))


def is_wanted(package: dict[str, Any]) -> bool:
    """Older files do not say to which group a package belongs: then all of them, but for the optional ones."""
    groups = package.get("groups", [package.get("category", "main")])
    return "main" in groups and not package.get("optional", False)


def requirement(package: dict[str, Any], document: dict[str, Any]) -> str:
    kind = package.get("source", {}).get("type")
    if kind in ("git", "directory", "file", "url"):
        sys.exit(f"poetry.lock: {package['name']} comes from a {kind}: write it into requirements.txt")
    line = f"{package['name']}=={package['version']}"
    markers = package.get("markers")
    if isinstance(markers, dict):
        markers = markers.get("main")
    files = package.get("files") or document.get("metadata", {}).get("files", {}).get(package["name"], [])
    hashes = "".join(f" --hash={one['hash']}" for one in files)
    return f"{line} ; {markers}{hashes}\n" if markers else f"{line}{hashes}\n"


if __name__ == "__main__":
    main(*sys.argv[1:])
