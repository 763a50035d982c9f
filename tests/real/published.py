"""Projects that other people published: their sources, taken out of the packages in which the indexes have them."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

Files = dict[str, str | bytes]


def npm_package(npm: str, name: str, *below: str) -> Files:
    """Of the newest version the files below these folders of the package, one over the other."""
    with tempfile.TemporaryDirectory() as folder:
        words = [npm, "pack", "--silent", name]
        made = subprocess.run(words, cwd=folder, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        return _unpacked(Path(folder, made.stdout.split()[-1]), below)


def sdist(name: str, *below: str) -> Files:
    """The same of a Python project's source distribution."""
    pip = shutil.which("pip3")
    if pip is None:
        pytest.skip("no pip3 on PATH")
    with tempfile.TemporaryDirectory() as folder:
        words = [pip, "download", "-q", "--no-deps", "--no-binary", ":all:", "--dest", folder, name]
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL, capture_output=True, cwd=folder)
        return _unpacked(next(Path(folder).glob("*.tar.gz")), below)


def locked(npm: str, files: Files) -> Files:
    """With a package-lock.json of npm's own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "package.json").write_bytes(as_bytes(files["package.json"]))
        words = [npm, "install", "--package-lock-only", "--no-audit", "--no-fund"]
        subprocess.run(words, cwd=folder, check=True, stdin=subprocess.DEVNULL, capture_output=True)
        return {**files, "package-lock.json": Path(folder, "package-lock.json").read_bytes()}


def generated(npx: str, *words: str) -> Files:
    """What a generator writes into an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        done = [npx, "--yes", *words, "made"]
        subprocess.run(done, cwd=folder, check=True, stdin=subprocess.DEVNULL, capture_output=True)
        made = Path(folder, "made")
        return {str(path.relative_to(made)): path.read_bytes() for path in made.rglob("*") if path.is_file()}


def scripts(files: Files) -> dict[str, str]:
    found: dict[str, str] = json.loads(files["package.json"])["scripts"]
    return found


def as_bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _unpacked(archive: Path, below: tuple[str, ...]) -> Files:
    found: Files = {}
    with tarfile.open(archive) as file:
        members = {one.name.partition("/")[2]: one for one in file if one.isfile()}
        for prefix in below or ("",):
            for path, member in members.items():
                content = file.extractfile(member) if path.startswith(prefix) else None
                if content is not None:
                    name = path.removeprefix(prefix).lstrip("/")
                    found[".gitignore" if name in ("_gitignore", "gitignore") else name] = content.read()
    return found
