"""Projects that other people published: their sources, taken out of the packages in which the indexes have them."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

Files = dict[str, str | bytes]


@dataclass(frozen=True)
class Source:
    """`of` is index, package and version, as the results name it."""

    of: str
    files: Files

    @property
    def version(self) -> str:
        return self.of.rpartition(" ")[2]

    def plus(self, files: Mapping[str, str | bytes]) -> Source:
        return replace(self, files={**self.files, **files})

    def without(self, *paths: str) -> Source:
        return replace(self, files={path: raw for path, raw in self.files.items() if not path.startswith(paths)})

    def needing(self, packages: Mapping[str, str]) -> Source:
        """With these in package.json, as `npm install --save-dev` writes them."""
        raw: dict[str, Any] = json.loads(self.files["package.json"])
        raw["devDependencies"] = {**raw.get("devDependencies", {}), **packages}
        return self.plus({"package.json": json.dumps(raw, indent=2) + "\n"})


def npm_package(name: str, *below: str) -> Source:
    """The files below these folders of the package, one over the other; the newest version unless `name` says one."""
    with tempfile.TemporaryDirectory() as folder:
        made = _run([_program("npm"), "pack", "--silent", name], folder).split()[-1]
        plain = name.rpartition("@")[0] if "@" in name[1:] else name
        version = made.removesuffix(".tgz").removeprefix(plain.lstrip("@").replace("/", "-") + "-")
        return Source(f"npm {plain} {version}", _unpacked(Path(folder, made), below))


def sdist(name: str, *below: str) -> Source:
    """The same of a Python project's source distribution."""
    with tempfile.TemporaryDirectory() as folder:
        words = [_program("pip3"), "download", "-q", "--no-deps", "--no-binary", name.partition("=")[0]]
        _run([*words, "--dest", folder, name], folder)
        made = next(Path(folder).glob("*.tar.gz"))
        package, _, version = made.name.removesuffix(".tar.gz").rpartition("-")
        return Source(f"PyPI {package} {version}", _unpacked(made, below))


def generated(package: str, *words: str) -> Source:
    """What an npm package's program writes into an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        version = _run([_program("npm"), "view", package, "version"], folder).split()[-1]
        _run([_program("npx"), "--yes", f"{package}@{version}", *words], folder)
        return Source(f"npm {package} {version}", _read(Path(folder, "made")))


def locked(source: Source, words: str = "npm install --package-lock-only", lock: str = "package-lock.json") -> Source:
    """With the lock file that a package manager makes of it."""
    with tempfile.TemporaryDirectory() as folder:
        for path, content in source.files.items():
            Path(folder, path).parent.mkdir(parents=True, exist_ok=True)
            Path(folder, path).write_bytes(as_bytes(content))
        program, *rest = words.split()
        _run([_program(program), *rest], folder)
        return replace(source, files={**source.files, lock: Path(folder, lock).read_bytes()})


def as_bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def scripts(files: Mapping[str, str | bytes]) -> dict[str, str]:
    found: dict[str, str] = json.loads(files["package.json"])["scripts"]
    return found


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"no {name} on PATH")
    return path


def _run(words: list[str], folder: str) -> str:
    done = subprocess.run(words, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


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


def _read(folder: Path) -> Files:
    skipped = ("node_modules", ".git", ".next")
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    names = ((path.relative_to(folder), path) for path in paths)
    return {str(name): path.read_bytes() for name, path in names if not set(name.parts) & set(skipped)}
