"""One stage for every driver that this machine can run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.runtime.choice import SYSTEMD
from adapters.runtime.docker import DockerDriver
from adapters.runtime.docker import Setup as DockerSetup
from adapters.runtime.process.driver import ProcessDriver, Setup
from adapters.runtime.process.recipe import Pace
from adapters.runtime.systemd import Setup as SystemdSetup
from adapters.runtime.systemd import SystemdDriver
from adapters.sandbox import capabilities
from tests.runtime import image
from tests.runtime.stage import Stage

QUICK = Pace(first=0.02, most=0.2, calm=3600.0, deaths=4)


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path, as sockets need, that every uid may pass."""
    folder = Path(tempfile.mkdtemp(prefix="hw-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def process_driver(place: Path) -> ProcessDriver:
    if not capabilities().ok:
        pytest.skip("no sandbox here: " + "; ".join(item.what for item in capabilities() if not item.ok))
    return ProcessDriver(Setup(place / "state", pace=QUICK))


@pytest.fixture
def box(process_driver: ProcessDriver, place: Path) -> Iterator[Stage]:
    """A stage of the embedded driver."""
    one = Stage(process_driver, place / "tree", QUICK.most)
    yield one
    one.close()


@pytest.fixture(
    params=[
        "process",
        pytest.param("docker", marks=pytest.mark.containers),
        pytest.param("systemd", marks=pytest.mark.slow),
    ]
)
def stage(request: pytest.FixtureRequest) -> Stage:
    """A stage of every driver."""
    boxes = {"process": "box", "docker": "docker_box", "systemd": "systemd_box"}
    return request.getfixturevalue(boxes[request.param])


@pytest.fixture
def systemd_box(place: Path) -> Iterator[Stage]:
    """A stage of PID 1; `.ci/systemd.sh` starts one."""
    if not SYSTEMD.is_dir() or os.geteuid() != 0:
        pytest.skip("no systemd: it is not PID 1 here, or this is not root (see .ci/systemd.sh)")
    one = Stage(SystemdDriver(SystemdSetup(place / "state")), place / "tree")
    yield one
    one.close()


@pytest.fixture
def docker_box(place: Path) -> Iterator[Stage]:
    """A stage of the engine that DOCKER_HOST names; `.ci/engine.sh` starts one."""
    address = os.environ.get("DOCKER_HOST", "")
    if not address.startswith("unix://"):
        pytest.skip("no engine: DOCKER_HOST names no unix socket (see .ci/engine.sh)")
    engine = Path(address.removeprefix("unix://"))
    driver = DockerDriver(DockerSetup(engine, image.make(engine), place / "state"))
    one = Stage(driver, place / "tree")
    try:
        yield one
        one.close()
    finally:
        driver.close()
