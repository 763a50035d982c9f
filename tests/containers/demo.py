"""`make compose-demo`: what `make demo` shows, on docker-compose.yml."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

from headway.cli.demo import Steps, show
from tests.containers.compose import REPOS, Compose
from tests.replicas.processes import free_port


@contextlib.contextmanager
def platform(folder: Path, steps: Steps) -> Iterator[tuple[str, str]]:
    """Everything of docker-compose.yml, and nothing left of it."""
    compose = Compose(folder)
    compose.prepare(sites_port=free_port(), api_port=free_port())
    steps.run("build the image", compose.build)
    try:
        steps.run("start every container", compose.up, lambda _: f"{len(compose.containers())} containers")
        yield compose.settings["HEADWAY_PUBLIC_URL"], (folder / "secrets" / "admin.key").read_text().strip()
    finally:
        steps.run("stop and remove them", compose.down)


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    source = REPOS / "demo"
    with tempfile.TemporaryDirectory(prefix="hwc-") as folder:
        shutil.rmtree(source, ignore_errors=True)
        show(Path(folder), source, lambda _repositories, steps: platform(Path(folder), steps))


if __name__ == "__main__":
    main()
