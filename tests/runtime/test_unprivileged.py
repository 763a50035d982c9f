"""The embedded driver without root: the same walls, in a user namespace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.sandbox import capabilities

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


@pytest.mark.skipif(not capabilities().ok, reason="no sandbox here")
def test_the_whole_way_as_nobody(place: Path) -> None:
    words, env = [sys.executable], {"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    place.chmod(0o777)
    if os.geteuid() == 0:
        drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        # By itself: the first program after a change of uid is still found with root's rights.
        again = (
            "import subprocess, sys, adapters.runtime.driver; subprocess.run([sys.executable, '-c', ''], check=True)"
        )
        look = f"{again}; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
        words = next(
            (
                [*drop, python]
                for python in (sys.executable, SYSTEM_PYTHON)
                if subprocess.run([*drop, python, "-c", look], env=env, capture_output=True, check=False).returncode
                == 0
            ),
            [],
        )
        if not words:
            pytest.skip("nobody can run this Python, or reach this checkout")
    done = subprocess.run(
        [*words, "-c", SCRIPT, str(place)], env=env, capture_output=True, text=True, timeout=150, check=False
    )
    assert done.stdout == "all of it\n", done.stdout + done.stderr
