"""docker-compose.yml on the engine at hand: brought up with secrets and settings of its own, and taken down whole."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.stack import Stack
from tests.replicas.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
# Where repositories lie, for the tests and (read-only) for API and builder: the same path on both sides.
REPOS = Path("/srv/repos")
PROFILES = "servers,builder,host,ui"
OFFLINE = "--no-index --find-links /build/wheels"


@dataclass
class Compose:
    """One project of docker-compose.yml. `folder` holds its secrets and its settings."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    up_seconds: float = 0.0

    @property
    def environment(self) -> dict[str, str]:
        given = {
            name: os.environ[name] for name in os.environ if name.startswith("DOCKER_") or name in ("PATH", "HOME")
        }
        return {**given, "COMPOSE_PROJECT_NAME": "headway", "COMPOSE_PROFILES": PROFILES, **self.settings}

    def run(self, *words: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """One `docker-compose` command; its last words are part of the failure."""
        done = subprocess.run(
            ["docker-compose", "--ansi", "never", "--progress", "quiet", *words],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"docker-compose {' '.join(words)}: {(done.stdout + done.stderr)[-3000:]}")
        return done

    def prepare(self, *, sites_port: int, api_port: int) -> None:
        secrets = self.folder / "secrets"
        subprocess.run([sys.executable, "-m", "headway", "make-secrets", str(secrets)], check=True, cwd=ROOT)
        self.settings |= {
            "HEADWAY_SECRETS": str(secrets),
            "HEADWAY_PUBLIC_URL": f"http://127.0.0.1:{api_port}",
            "HEADWAY_API_LISTEN": f"127.0.0.1:{api_port}",
            "HEADWAY_SITES_DOMAIN": "sites.test",
            "HEADWAY_SITES_PORT": str(sites_port),
            "HEADWAY_REPOS_DIR": str(REPOS),
            "HEADWAY_RATE_LIMITS": "false",
            "HEADWAY_BUILD_MEMORY": str(512 << 20),
            "HEADWAY_HEALTH_INTERVAL": "2s",
        }

    def build(self) -> None:
        """The image; where no index is reached from a build, from packages that were fetched outside."""
        if os.environ.get("HEADWAY_STANDINS"):
            subprocess.run([ROOT / ".ci" / "images" / "wheels.sh"], check=True, timeout=300)
            self.settings["HEADWAY_PIP_ARGS"] = OFFLINE
        self.run("build", timeout=600)

    def up(self) -> None:
        """Everything, healthy. What keeps it from that is in the failure, with the last lines of who is not."""
        began = time.monotonic()
        done = self.run("up", "--detach", "--wait", "--wait-timeout", "420", check=False, timeout=480)
        self.up_seconds = time.monotonic() - began
        sick = [one for one in self.containers() if one["State"] != "exited" and one["Health"] not in ("healthy", "")]
        failed = [one for one in self.containers() if one["State"] == "exited" and one["ExitCode"] != 0]
        if sick or failed or any(one["State"] == "created" for one in self.containers()):
            logs = "".join(self.log(one["Service"]) for one in (*failed, *sick))
            raise AssertionError(f"the stack is not up: {(done.stdout + done.stderr)[-2000:]}\n{logs}")

    def down(self) -> None:
        self.run("down", "--volumes", "--timeout", "20", timeout=180)

    def containers(self) -> list[dict[str, Any]]:
        lines = self.run("ps", "--all", "--format", "json").stdout.splitlines()
        return [json.loads(line) for line in lines]

    def names(self, service: str) -> list[str]:
        return sorted(one["Name"] for one in self.containers() if one["Service"] == service)

    def log(self, service: str, lines: int = 25) -> str:
        return self.run("logs", "--no-color", "--tail", str(lines), service, check=False).stdout

    def stack(self) -> Stack:
        """As the tests of the embedded stack see one."""
        return Stack(
            data=self.folder,
            repos=REPOS,
            api=self.settings["HEADWAY_PUBLIC_URL"],
            sites_port=int(self.settings["HEADWAY_SITES_PORT"]),
            temporal="",
            key=(self.folder / "secrets" / "admin.key").read_text().strip(),
            up_seconds=self.up_seconds,
            command=(),
        )


@contextlib.contextmanager
def running() -> Iterator[Compose]:
    """The whole file up, on free ports; down again whatever happens."""
    with tempfile.TemporaryDirectory(prefix="hwc-") as folder:
        REPOS.mkdir(parents=True, exist_ok=True)
        made = Compose(Path(folder))
        made.prepare(sites_port=free_port(), api_port=free_port())
        made.build()
        try:
            made.up()
            # The repositories that this platform hosts, where the tests of the embedded stack look for them.
            Path(folder, "repos").symlink_to(
                docker("volume", "inspect", "headway_repos", "--format", "{{.Mountpoint}}")
            )
            yield made
        finally:
            made.down()


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()
