"""Makers of static sites, and package managers, as they come from the indexes: by detection alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

from bench.client import Caller
from tests.real.apps import ask_json, build, started
from tests.real.conftest import Commit
from tests.real.test_python_apps import FASTAPI

pytestmark = pytest.mark.slow

PAGE = '<!doctype html><title>Weir</title><div id="app"></div><script type="module" src="/main.js"></script>\n'


def package(build: str, *needs: str, **more: Any) -> str:
    """`needs` are names, or `name@version` where a newer one wants a newer Node than machines have."""
    parts = [(one.rpartition("@") if "@" in one[1:] else (one, "", "*")) for one in needs]
    versions = {name: version for name, _, version in parts}
    named = {"name": "site", "version": "1.0.0", "private": True, "type": "module", "scripts": {"build": build}}
    return json.dumps({**named, "devDependencies": versions, **more}, indent=2)


def locked(files: dict[str, str], words: list[str], lock: str) -> dict[str, str]:
    """The same files with the lock that a package manager makes of them."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
            Path(folder, name).write_text(text)
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return {**files, lock: Path(folder, lock).read_text()}


NPM = ["npm", "install", "--package-lock-only", "--no-audit", "--no-fund"]
NODE: dict[str, tuple[dict[str, str], str, str]] = {
    "eleventy": (
        {"package.json": package("eleventy", "@11ty/eleventy"), "index.md": "# Herons\n"},
        "index.html",
        "<h1>Herons</h1>",
    ),
    "vitepress": (
        {"package.json": package("vitepress build docs", "vitepress"), "docs/index.md": "# Herons\n"},
        "index.html",
        "Herons",
    ),
    "astro": (
        {
            "package.json": package("astro build", "astro@5"),
            "src/pages/index.astro": '---\nconst bird = "Herons"\n---\n<html><body><h1>{bird}</h1></body></html>\n',
        },
        "index.html",
        "<h1>Herons</h1>",
    ),
}


@pytest.mark.parametrize("name", NODE)
def test_made_by_node(caller: Caller, commit: Commit, npm: str, tmp_path: Path, name: str) -> None:
    files, page, wanted = NODE[name]
    site = caller.new_site(f"made-{name}", commit(f"made-{name}", locked(files, [npm, *NPM[1:]], "package-lock.json")))
    built = build(caller, site, tmp_path)
    assert built.manifest["kind"] == "static"
    assert wanted in (tmp_path / page).read_text()


def test_vite_by_pnpm(caller: Caller, commit: Commit, npm: str, tmp_path: Path) -> None:
    assert shutil.which("npx"), f"{npm} comes with npx"
    sources = {"package.json": package("vite build", "vite"), "index.html": PAGE, "main.js": "console.log('heron')\n"}
    files = locked(sources, ["npx", "--yes", "pnpm@9", "install", "--lockfile-only"], "pnpm-lock.yaml")
    site = caller.new_site("by-pnpm", commit("by-pnpm", files))
    built = build(caller, site, tmp_path / "a")
    assert any(path.startswith("assets/index-") for path in built.paths())
    assert build(caller, site, tmp_path / "b", clean=True).digest == built.digest


def test_vite_by_bun(caller: Caller, commit: Commit, npm: str, tmp_path: Path) -> None:
    """By its own lock file, and with what scripts call."""
    assert shutil.which("npx"), f"{npm} comes with npx"
    sources = {
        "package.json": package("bunx vite build", "vite"),
        "index.html": PAGE,
        "main.js": "console.log('heron')\n",
    }
    files = locked(sources, ["npx", "--yes", "bun@1", "install", "--lockfile-only"], "bun.lock")
    site = caller.new_site("by-bun", commit("by-bun", files))
    built = build(caller, site, tmp_path / "a")
    assert any(path.startswith("assets/index-") for path in built.paths())
    assert build(caller, site, tmp_path / "b", clean=True).digest == built.digest


def test_vite_by_classic_yarn(caller: Caller, commit: Commit, npm: str, tmp_path: Path) -> None:
    """Its lock file names Yarn's own registry, which no builder has to reach."""
    assert shutil.which("npx"), f"{npm} comes with npx"
    sources = {"package.json": package("vite build", "vite@6"), "index.html": PAGE, "main.js": "console.log('heron')\n"}
    words = ["npx", "--yes", "yarn@1.22.22", "install", "--ignore-scripts", "--no-progress", "--non-interactive"]
    files = locked(sources, words, "yarn.lock")
    site = caller.new_site("by-yarn", commit("by-yarn", files))
    built = build(caller, site, tmp_path / "a")
    assert any(path.startswith("assets/index-") for path in built.paths())
    assert build(caller, site, tmp_path / "b", clean=True).digest == built.digest


def test_vite_by_plug_n_play(caller: Caller, commit: Commit, npm: str, tmp_path: Path) -> None:
    """No `node_modules` at all; what the first build has downloaded is enough for the second one, without a network."""
    assert shutil.which("npx"), f"{npm} comes with npx"
    sources = {
        "package.json": package("vite build", "vite@5", packageManager="yarn@4.9.2"),
        ".yarnrc.yml": "nodeLinker: pnp\n",
        "index.html": PAGE,
        "main.js": "console.log('heron')\n",
    }
    words = ["npx", "--yes", "@yarnpkg/cli-dist@4.9.2", "install", "--mode=update-lockfile"]
    site = caller.new_site("by-pnp", commit("by-pnp", locked(sources, words, "yarn.lock")))
    built = build(caller, site, tmp_path / "a")
    assert any(path.startswith("assets/index-") for path in built.paths())
    commit("by-pnp", {"headway.toml": '[build]\nenv = { YARN_ENABLE_NETWORK = "0" }\n', "main.js": "console.log(2)\n"})
    assert build(caller, site, tmp_path / "b").digest != built.digest


MKDOCS = {"mkdocs.yml": "site_name: Weir\n", "docs/index.md": "# Herons\n", "requirements.txt": "mkdocs\n"}
SPHINX = {
    "docs/conf.py": 'project = "weir"\nextensions = ["sphinx.ext.autodoc"]\nhtml_theme = "alabaster"\n',
    "docs/index.rst": "Herons\n======\n\n.. automodule:: weir\n   :members:\n",
    "pyproject.toml": '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
    '[project]\nname = "weir"\nversion = "1"\n',
    "weir.py": 'def level():\n    """How high the water stands."""\n',
}


@pytest.mark.parametrize(("name", "files"), [("mkdocs", MKDOCS), ("sphinx", SPHINX)])
def test_documentation(caller: Caller, commit: Commit, tmp_path: Path, name: str, files: dict[str, str]) -> None:
    site = caller.new_site(f"made-{name}", commit(f"made-{name}", files))
    built = build(caller, site, tmp_path / "a")
    page = (tmp_path / "a" / "index.html").read_text()
    assert "Herons" in page
    assert name == "mkdocs" or "How high the water stands." in page
    assert build(caller, site, tmp_path / "b", clean=True).digest == built.digest


def test_an_app_by_the_lock_of_uv(caller: Caller, commit: Commit, tmp_path: Path) -> None:
    files = locked(FASTAPI, [find_uv_bin(), "lock", "--quiet", "--python", "python3"], "uv.lock")
    site = caller.new_site("by-uv", commit("by-uv", files))
    built = build(caller, site, tmp_path / "a")
    with started(built) as port:
        assert ask_json(port, "/") == {"metres": 1.25}
    assert build(caller, site, tmp_path / "b", clean=True).digest == built.digest
