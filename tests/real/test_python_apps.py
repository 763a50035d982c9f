"""Python apps with dependencies from the index: built twice to the same bytes, started from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.client import Caller
from tests.real.apps import ask, ask_json, build, started
from tests.real.conftest import Commit

pytestmark = pytest.mark.slow

FLASK = {
    "app.py": """import os

from flask import Flask

app = Flask(__name__)


@app.get("/")
def index() -> str:
    return f"<h1>Herons</h1> in {os.getcwd()}"
""",
    "requirements.txt": "flask>=3\nwaitress>=3\n",
}
FASTAPI = {
    "src/weir/__init__.py": "",
    "src/weir/main.py": """from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Level(BaseModel):
    metres: float


@app.get("/")
async def level() -> Level:
    return Level(metres=1.25)
""",
    "pyproject.toml": """[project]
name = "weir"
version = "1.0.0"
requires-python = ">=3.9"
dependencies = ["fastapi>=0.115", "uvicorn>=0.30"]
""",
}
DATASETTE = {
    "requirements.txt": "datasette\n",
    "Procfile": 'web: datasette serve herons.db --host "${HOST:-0.0.0.0}" --port $PORT\n',
    "headway.toml": """[build]
command = '''python3 -c "
import sqlite3
db = sqlite3.connect('herons.db')
db.execute('create table seen (place text, birds int)')
db.execute('insert into seen values (?, ?)', ('weir', 7))
db.commit()
"'''

[run]
health_check_path = "/-/versions.json"
""",
}


def test_flask_by_requirements(caller: Caller, commit: Commit, tmp_path: Path) -> None:
    site = caller.new_site("app-flask", commit("app-flask", FLASK))
    first = build(caller, site, tmp_path / "a")
    assert first.manifest["kind"] == "dynamic"
    assert first.run["command"].endswith("app:app")
    with started(first) as port:
        assert ask(port, "/") == (200, f"<h1>Herons</h1> in {tmp_path / 'a'}")
    again = build(caller, site, tmp_path / "b", clean=True)
    assert again.result["build_id"] != first.result["build_id"]
    assert again.digest == first.digest
    assert first.mentions(b"/workspace", b"/home/build") == []


def test_the_programs_of_libraries_run_wherever_the_tree_lies(caller: Caller, commit: Commit, tmp_path: Path) -> None:
    site = caller.new_site("app-programs", commit("app-programs", FLASK))
    built = build(caller, site, tmp_path / "elsewhere")
    program = built.tree / ".headway/site-packages/bin/flask"
    assert os.access(program, os.X_OK)
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(program.parent.parent)}
    shown = subprocess.run([program, "--version"], env=env, capture_output=True, text=True, check=True)
    assert "Flask 3." in shown.stdout
    assert sys.prefix.encode() not in program.read_bytes()


def test_fastapi_by_pyproject(caller: Caller, commit: Commit, tmp_path: Path) -> None:
    site = caller.new_site("app-fastapi", commit("app-fastapi", FASTAPI))
    built = build(caller, site, tmp_path)
    assert built.run["command"].endswith("weir.main:app")
    with started(built) as port:
        assert ask_json(port, "/") == {"metres": 1.25}


def test_datasette_serves_a_database_that_the_build_made(caller: Caller, commit: Commit, tmp_path: Path) -> None:
    site = caller.new_site("app-datasette", commit("app-datasette", DATASETTE))
    built = build(caller, site, tmp_path)
    assert built.manifest["health_path"] == "/-/versions.json"
    with started(built) as port:
        assert ask_json(port, "/herons/seen.json?_shape=array")[0]["birds"] == 7
