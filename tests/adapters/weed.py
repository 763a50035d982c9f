"""A real object store for tests: one `weed` process on free loopback ports."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from adapters.objects import ObjectStore
from headway.errors import HeadwayError

ACCESS, SECRET = "test", "test-secret"


def free_ports(count: int) -> list[int]:
    """Ports whose gRPC twins, ten thousand above, are free as well."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            low = held.enter_context(socket.socket())
            low.bind(("127.0.0.1", 0))
            port = low.getsockname()[1]
            if port + 10_000 > 65_535:
                port -= 20_000
            high = held.enter_context(socket.socket())
            try:
                high.bind(("127.0.0.1", port + 10_000))
                if port != low.getsockname()[1]:
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    return found


@contextmanager
def running_weed(folder: Path) -> Iterator[str]:
    """Start it in an empty folder and yield its endpoint; on the way out it is ended."""
    identity = {
        "name": "test",
        "credentials": [{"accessKey": ACCESS, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "identities.json"
    config.write_text(json.dumps({"identities": [identity]}))
    s3, master, volume, filer, admin = free_ports(5)
    program = shutil.which("weed") or str(Path(sys.executable).with_name("weed"))
    flags = {
        "dir": folder,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "s3.port": s3,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "webdav": "false",
        "admin.ui": "false",
        "master.telemetry": "false",
        "master.port": master,
        "volume.port": volume,
        "filer.port": filer,
        "admin.port": admin,
        "s3.config": config,
    }
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "mini", "-disableHttp", *(f"-{name}={value}" for name, value in flags.items())],
            stdout=log,
            stderr=log,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
            start_new_session=True,
        )
    try:
        yield f"http://127.0.0.1:{s3}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def open_store(endpoint: str, bucket: str = "headway") -> ObjectStore:
    """A store whose bucket exists, as soon as the server answers."""
    store = ObjectStore(endpoint, "us-east-1", bucket, ACCESS, SECRET)
    deadline = time.monotonic() + 30
    while True:
        try:
            store.ensure_bucket()
            return store
        except HeadwayError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
