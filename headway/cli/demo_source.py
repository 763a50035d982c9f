"""A real site that is not ours, as a git repository: the npm package reveal.js, else a site out of a Python wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headway.errors import HeadwayError

NPM_PACKAGE: Final = "reveal.js@5.2.1"
PIP_PACKAGE: Final = "swagger-ui-bundle==1.1.0"
_TITLE = re.compile(r"(<title>)(.*?)(</title>)", re.DOTALL)
# The package is committed as it was published: there is nothing to build any more.
_SETTINGS = '# Published as it is.\n[build]\ncommand = ""\n'


@dataclass(frozen=True)
class Repository:
    """A bare repository beside the folder in which it is edited. `origin` says where the site comes from."""

    origin: str
    bare: Path
    work: Path

    @property
    def url(self) -> str:
        return self.bare.as_uri()


def make_repository(folder: Path, cache: Path) -> Repository:
    """Fetch the site (once: the archive is kept in `cache`) and commit it. Raises source.invalid."""
    work, bare = folder / "work", folder / "site.git"
    work.mkdir(parents=True)
    origin = _published_site(work, cache)
    (work / "headway.toml").write_text(_SETTINGS)
    git(work, "init", "-q", "-b", "main")
    _commit(work, f"{origin}, as published")
    git(folder, "clone", "-q", "--bare", str(work), str(bare))
    git(work, "remote", "add", "origin", str(bare))
    return Repository(origin, bare, work)


def second_commit(repository: Repository) -> str:
    """Change the page's title and push; answers the new commit."""
    page = repository.work / "index.html"
    text, changed = _TITLE.subn(r"\g<1>\g<2>, second edition\g<3>", page.read_text(), count=1)
    if not changed:
        raise HeadwayError("source.invalid", f"{repository.origin} has no title to change.")
    page.write_text(text)
    _commit(repository.work, "Second edition")
    git(repository.work, "push", "-q", "origin", "main")
    return head(repository)


def head(repository: Repository) -> str:
    return git(repository.work, "rev-parse", "HEAD")


def title_of(page: str) -> str:
    found = _TITLE.search(page)
    return " ".join(found[2].split()) if found else "(no title)"


def git(folder: Path, *arguments: str) -> str:
    """One git command that no configuration of this machine or user changes."""
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in _WHO.items()},
    }
    done = _run(["git", *arguments], folder, environment)
    if done.returncode:
        raise HeadwayError("source.invalid", f"git {arguments[0]} failed: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()


_WHO: Final = {"NAME": "Headway demo", "EMAIL": "demo@localhost"}


def _commit(work: Path, message: str) -> None:
    git(work, "add", "--all", "--force")
    git(work, "commit", "-q", "--no-verify", "-m", message)


def _published_site(target: Path, cache: Path) -> str:
    cache.mkdir(parents=True, exist_ok=True)
    sources: list[tuple[str, Callable[[Path, Path], None]]] = []
    if shutil.which("npm"):
        sources.append((f"npm {NPM_PACKAGE}", _from_npm))
    sources.append((f"PyPI {PIP_PACKAGE}", _from_pip))
    why = ""
    for name, fetch in sources:
        try:
            fetch(target, cache)
            return name
        except (HeadwayError, OSError, tarfile.TarError, zipfile.BadZipFile) as error:
            why = f"{name}: {error}"
            shutil.rmtree(target)
            target.mkdir()
    raise HeadwayError("source.invalid", f"No site could be fetched. {why}")


def _from_npm(target: Path, cache: Path) -> None:
    archive = cache / (NPM_PACKAGE.replace("@", "-") + ".tgz")
    if not archive.exists():
        _download(["npm", "pack", "--silent", "--ignore-scripts", NPM_PACKAGE], cache, archive)
    with tarfile.open(archive) as packed:
        packed.extractall(target, filter="data")
    _lift(target / "package", target)


def _from_pip(target: Path, cache: Path) -> None:
    name, _, version = PIP_PACKAGE.partition("==")
    archive = cache / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    if not archive.exists():
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        _download([*pip, "--no-deps", "--only-binary", ":all:", PIP_PACKAGE], cache, archive)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(target / "wheel")  # noqa: S202 (zipfile drops absolute and parent paths itself)
    page = next(iter(sorted((target / "wheel").rglob("index.html"))), None)
    if page is None:
        raise HeadwayError("source.invalid", "the wheel holds no index.html")
    _lift(page.parent, target)
    shutil.rmtree(target / "wheel")


def _download(command: list[str], cache: Path, archive: Path) -> None:
    """By the package manager's own client, into a folder aside; tried three times."""
    aside = cache / f".{archive.name}.{os.getpid()}"
    aside.mkdir(exist_ok=True)
    try:
        for last in (False, False, True):
            done = _run(command, aside, os.environ)
            found = next(iter(aside.iterdir()), None)
            if done.returncode == 0 and found is not None:
                found.replace(archive)
                return
            if last:
                said = (done.stderr or done.stdout).strip().splitlines()
                raise HeadwayError("source.invalid", said[-1][:300] if said else f"{command[0]} failed")
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _run(command: list[str], folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, cwd=folder, env=dict(environment), capture_output=True, text=True, timeout=180, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HeadwayError("source.invalid", f"{command[0]} cannot be run: {type(error).__name__}.") from error


def _lift(folder: Path, target: Path) -> None:
    for entry in folder.iterdir():
        entry.rename(target / entry.name)
