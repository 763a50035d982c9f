"""What a build does with installed libraries: the same bytes wherever, and whenever, they were installed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import adapters.plan.kit

KIT = Path(adapters.plan.kit.__file__).parent
LIBRARIES = ".headway/site-packages"


def install(root: Path) -> Path:
    """What uv leaves, with a path of this machine in each place where one can be."""
    libraries = root / LIBRARIES
    files = {
        "pond/__init__.py": "NAMES = {'heron', 'weir', 'stork'}\n\n\ndef show(x={'a', 'b', 'c'}):\n    return x\n",
        "pond/template.py": "this is {{ no }} Python\n",
        "pond/__pycache__/old.cpython-311.pyc": str(root),
        "pond-1.dist-info/RECORD": "\n".join(
            (
                f"../../{LIBRARIES}/bin/pond,sha256=abc,100",
                "pond/__init__.py,sha256=def,50",
                "pond/__pycache__/old.cpython-311.pyc,,",
                "pond-1.dist-info/direct_url.json,sha256=ghi,70",
            )
        ),
        "pond-1.dist-info/direct_url.json": f'{{"url": "file://{root}"}}',
        "bin/pond": f"#!{root}/bin/python3.11\nimport pond\nprint(pond.show({{1}}))\n",
        "bin/long": f"#!/bin/sh\n'''exec' '{root}/bin/python3' \"$0\" \"$@\"\n' '''\nprint('long')\n",
        "bin/plain": "#!/bin/sh\necho plain\n",
    }
    for name, text in files.items():
        (libraries / name).parent.mkdir(parents=True, exist_ok=True)
        (libraries / name).write_text(text)
    for program in (libraries / "bin").iterdir():
        program.chmod(0o755)
    (libraries / "bin/binary").write_bytes(b"\x7fELF\0#!/usr/bin/python3\n")
    (root / "__pycache__").mkdir()
    (root / "__pycache__/app.cpython-311.pyc").write_text("stale")
    return libraries


def tidy(root: Path) -> dict[str, str]:
    env = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0"}
    subprocess.run([sys.executable, KIT / "tidy.py", LIBRARIES], cwd=root, env=env, check=True)
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_two_installations_are_the_same_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "another/place"
    install(one), install(two)
    os.utime(two / LIBRARIES / "pond/__init__.py", (1, 1))
    found = tidy(one)
    assert found == tidy(two)
    assert not any(name.startswith("__pycache__") or name.endswith("direct_url.json") for name in found)
    compiled = [name for name in found if name.endswith(".pyc")]
    assert [Path(name).name.split(".")[0] for name in compiled] == ["__init__"]
    assert [path for path in one.rglob("*") if path.is_file() and str(tmp_path).encode() in path.read_bytes()] == []
    assert tidy(one) == found


def test_programs_find_python_on_the_path(tmp_path: Path) -> None:
    libraries = install(tmp_path)
    before = (libraries / "bin/binary").read_bytes(), (libraries / "bin/plain").read_bytes()
    tidy(tmp_path)
    moved = tmp_path / "moved"
    libraries.rename(moved)
    env = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(moved)}
    for name, said in (("pond", "{1}\n"), ("long", "long\n"), ("plain", "plain\n")):
        shown = subprocess.run([moved / "bin" / name], env=env, capture_output=True, text=True, check=True)
        assert shown.stdout == said
    assert ((moved / "bin/binary").read_bytes(), (moved / "bin/plain").read_bytes()) == before
    record = (moved / "pond-1.dist-info/RECORD").read_text().splitlines()
    assert record == [f"../../{LIBRARIES}/bin/pond,,", "pond/__init__.py,sha256=def,50"]


def test_nothing_was_installed(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("x")
    assert list(tidy(tmp_path)) == ["app.py"]


POETRY = """
[[package]]
name = "pond"
version = "1.0"
groups = ["main", "dev"]
markers = "python_version >= '3.9'"
files = [{file = "pond-1.0.whl", hash = "sha256:aa"}, {file = "pond-1.0.tar.gz", hash = "sha256:bb"}]

[[package]]
name = "lint"
version = "2"
groups = ["dev"]
files = []

[[package]]
name = "extra"
version = "3"
optional = true
files = []
"""


def test_a_lock_of_poetry_as_requirements(tmp_path: Path) -> None:
    (tmp_path / "poetry.lock").write_text(POETRY)
    words = [sys.executable, KIT / "poetry.py", "poetry.lock", "out.txt"]
    subprocess.run(words, cwd=tmp_path, check=True)
    wanted = "pond==1.0 ; python_version >= '3.9' --hash=sha256:aa --hash=sha256:bb\n"
    assert (tmp_path / "out.txt").read_text() == wanted
    (tmp_path / "poetry.lock").write_text(
        POETRY.replace("files = []", 'source = {type = "git"}', 1).replace("dev", "main")
    )
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "lint comes from a git" in done.stderr


@pytest.mark.parametrize("name", ["tidy.py", "poetry.py"])
def test_the_helpers_need_nothing_but_python(name: str) -> None:
    words = [sys.executable, "-I", "-S", "-c", f"import runpy; runpy.run_path({str(KIT / name)!r})"]
    subprocess.run(words, check=True)
