"""The tier's engine: whatever DOCKER_HOST or the usual socket leads to; `.ci/engine.sh pytest …` brings one along."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from bench.client import Caller
from bench.stack import Stack
from tests.containers.compose import ROOT, Compose, running

STANDINS = """
Stand-in images, under the real names and tags (tests/containers/README.md):
  temporalio/server, temporalio/admin-tools, temporalio/ui: the development server of the same version. Not run:
    Temporal on PostgreSQL, its schema tool, the UI's own server.
  postgres: Debian's 15 with a short entrypoint. chrislusf/seaweedfs, caddy: upstream's binaries on busybox.
  python: this machine's Python. Not run: apt-get and the index inside an image build.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The single servers first: the compose file stays up from its first test to the last."""
    here = [item for item in items if "containers" in item.keywords]
    if here:
        items.sort(key=lambda item: ("containers" in item.keywords, "test_servers" not in item.nodeid))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the tier did not run is said each time."""
    if os.environ.get("HEADWAY_STANDINS"):
        terminalreporter.write_line(STANDINS)


@pytest.fixture(scope="session")
def engine() -> str:
    """The engine's version. Without an engine the tier is skipped, in one line; in CI it fails."""
    try:
        done = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        found, why = done.stdout.strip(), done.stderr.strip().splitlines()[-1:] or ["it says nothing"]
    except (OSError, subprocess.TimeoutExpired) as error:
        found, why = "", [str(error)]
    if not found:
        sentence = f"no Docker-compatible engine answers ({why[0]}); `make test-containers` brings one along"
        if os.environ.get("CI"):
            pytest.fail(sentence)
        pytest.skip(sentence)
    return found


@pytest.fixture(scope="session")
def compose(engine: str) -> Iterator[Compose]:
    with running() as made:
        yield made


@pytest.fixture(scope="session")
def stack(compose: Compose) -> Stack:
    return compose.stack()


@pytest.fixture(scope="session")
def caller(stack: Stack) -> Iterator[Caller]:
    made = Caller(stack)
    yield made
    made.http.close()


@pytest.fixture(scope="session")
def images(engine: str) -> dict[str, str]:
    """Name → name with tag, as docker-compose.yml has them."""
    found = re.findall(r"^ +image: ((\S+?):\S+)$", (ROOT / "docker-compose.yml").read_text(), re.M)
    return {name: tagged for tagged, name in found}
