"""The contract of all drivers, and a service's whole roll, under a systemd that really is PID 1."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.runtime.choice import SYSTEMD

TOP = Path(__file__).resolve().parents[2]
NOT_HERE = 77
MODULES = tuple(f"tests/runtime/test_{name}.py" for name in ("conformance", "walls", "whole_rolls"))


@pytest.mark.slow
@pytest.mark.timeout(960)
@pytest.mark.skipif(SYSTEMD.is_dir(), reason="systemd is PID 1 here already: the tests run as they are")
def test_the_contract_holds_under_a_live_systemd() -> None:
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "slow",
        "-k",
        "systemd",
        "-p",
        "no:cacheprovider",
        "--timeout=600",
        *MODULES,
    ]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [str(TOP / ".ci" / "systemd.sh"), *words],
        cwd=TOP,
        env=env,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if done.returncode == NOT_HERE:
        pytest.skip(done.stderr.strip()[-300:] or "no systemd starts here")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout
