"""Node apps with dependencies from the registry: only what runs is kept, and it runs from another folder."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import pytest

from bench.client import Caller
from tests.real.apps import ask_json, build, started
from tests.real.conftest import Commit

pytestmark = pytest.mark.slow

SERVER = """import express from "express";

const app = express();
app.get("/", (_request, response) => response.json({ built: process.env.NODE_ENV, herons: 7 }));
app.listen(process.env.PORT, process.env.HOST);
"""
PACKAGE = {
    "name": "herons",
    "version": "1.0.0",
    "private": True,
    "type": "module",
    "scripts": {"start": "node server.js"},
    "dependencies": {"express": "^5.0.0"},
    "devDependencies": {"prettier": "^3.0.0"},
}


def files(npm: str, package: dict[str, object]) -> dict[str, str]:
    manifest = json.dumps(package, indent=2)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "package.json").write_text(manifest)
        words = [npm, "install", "--package-lock-only", "--no-audit", "--no-fund"]
        subprocess.run(words, cwd=folder, check=True, stdin=subprocess.DEVNULL, capture_output=True)
        lock = Path(folder, "package-lock.json").read_text()
    return {"package.json": manifest, "package-lock.json": lock, "server.js": SERVER}


@pytest.mark.parametrize("builds", [False, True])
def test_express(caller: Caller, commit: Commit, npm: str, tmp_path: Path, builds: bool) -> None:
    name = f"app-express-{'built' if builds else 'plain'}"
    scripts = {"start": "node server.js", **({"build": "prettier --write server.js"} if builds else {})}
    site = caller.new_site(name, commit(name, files(npm, {**PACKAGE, "scripts": scripts})))
    first = build(caller, site, tmp_path / "a")
    assert "node_modules/express/package.json" in first.paths()
    assert not any(path.startswith("node_modules/prettier/") for path in first.paths())
    with started(first) as port:
        assert ask_json(port, "/") == {"built": "production", "herons": 7}
    assert build(caller, site, tmp_path / "b", clean=True).digest == first.digest
    assert first.mentions(b"/workspace", b"/home/build") == []


def test_programs_of_packages_stay_links(caller: Caller, commit: Commit, npm: str, tmp_path: Path) -> None:
    package = {**PACKAGE, "dependencies": {"express": "^5.0.0", "mime": "^4.0.0"}}
    site = caller.new_site("app-links", commit("app-links", files(npm, package)))
    built = build(caller, site, tmp_path)
    assert {"path": "node_modules/.bin/mime", "link": "../mime/bin/cli.js"} in built.manifest["files"]
    assert (built.tree / "node_modules/.bin/mime").is_symlink()
