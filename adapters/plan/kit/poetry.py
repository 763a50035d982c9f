"""A poetry.lock as a file of requirements with hashes: `python3 poetry.py LOCK OUTPUT [GROUP …]`.

The main group, and those that are named.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any


def main(lock: str, output: str, *more: str) -> None:
    document = tomllib.loads(Path(lock).read_text(encoding="utf-8"))
    packages = document.get("package", [])
    wanted = ("main", *more)
    Path(output).write_text("".join(requirement(one, document, wanted) for one in packages if is_wanted(one, wanted)))


def is_wanted(package: dict[str, Any], wanted: tuple[str, ...] = ("main",)) -> bool:
    """Older files do not say to which group a package belongs: then all of them, but for the optional ones."""
    groups = package.get("groups", [package.get("category", "main")])
    return any(name in wanted for name in groups) and not package.get("optional", False)


def requirement(package: dict[str, Any], document: dict[str, Any], wanted: tuple[str, ...] = ("main",)) -> str:
    kind = package.get("source", {}).get("type")
    if kind in ("git", "directory", "file", "url"):
        sys.exit(f"poetry.lock: {package['name']} comes from a {kind}: write it into requirements.txt")
    line = f"{package['name']}=={package['version']}"
    markers = package.get("markers")
    if isinstance(markers, dict):
        # Each group may need it in other places; who asks for it anywhere gets it everywhere.
        asked = [markers.get(name) for name in wanted if name in package.get("groups", ["main"])]
        markers = None if None in asked else " or ".join(f"({one})" for one in dict.fromkeys(asked))
    files = package.get("files") or document.get("metadata", {}).get("files", {}).get(package["name"], [])
    hashes = "".join(f" --hash={one['hash']}" for one in files)
    return f"{line} ; {markers}{hashes}\n" if markers else f"{line}{hashes}\n"


if __name__ == "__main__":
    main(*sys.argv[1:])
