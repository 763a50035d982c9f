"""A PostgreSQL that a test may restart, and two APIs on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.replicas.processes import ROOT, Installation, Part, Servers, installation

SCRIPT = ROOT / ".ci" / "postgres.sh"


@dataclass(frozen=True)
class Postgres:
    folder: Path
    url: str

    def restart(self) -> None:
        """At once, as a crash would end it; what was committed is there afterwards."""
        port = str(urlsplit(self.url).port)
        subprocess.run([SCRIPT, "restart", self.folder, port], check=True, capture_output=True, timeout=90)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    if os.geteuid() != 0 or not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or not shutil.which("setpriv"):
        pytest.skip("a PostgreSQL of its own needs root and Debian's postgresql")
    with tempfile.TemporaryDirectory(prefix="hwpg-") as folder:
        Path(folder).chmod(0o755)
        at = Path(folder, "pg")
        done = subprocess.run([SCRIPT, "start", at], check=True, capture_output=True, text=True, timeout=120)
        try:
            yield Postgres(at, done.stdout.strip().splitlines()[-1])
        finally:
            subprocess.run([SCRIPT, "stop", at], check=False, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def pair(postgres: Postgres) -> Iterator[tuple[Installation, Part, Part]]:
    """Two APIs on one database and one folder. Temporal and S3 are away: what is accepted stays queued."""
    servers = Servers(postgres.url, "127.0.0.1:9", "http://127.0.0.1:9", "a", "b")
    with tempfile.TemporaryDirectory(prefix="hwr-") as folder, installation(Path(folder), servers) as made:
        one, two = made.api("one"), made.api("two")
        made.wait(one, two)
        yield made, one, two
