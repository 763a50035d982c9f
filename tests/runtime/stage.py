"""What runtime tests share: a stage with a driver and a release tree, and ways to ask what runs on it."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from adapters.runtime.driver import Bounds, InstanceRef, InstanceSpec, RuntimeDriver, Status

PATIENCE = 60.0
T = TypeVar("T")


def until(look: Callable[[], T | None], what: str) -> T:
    """The first true answer. Bounded, so that a broken product fails instead of hanging."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
    return found


class Stage:
    """`start` and ask; everything that was started is removed in the end. `pause`: the driver's longest, in seconds."""

    def __init__(self, driver: RuntimeDriver, tree: Path, pause: float = 30.0) -> None:
        self.driver, self.tree, self.pause = driver, tree, pause
        self.started: list[InstanceRef] = []
        tree.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(__file__).with_name("app.py"), tree / "app.py")
        tree.chmod(0o755)

    def spec(self, mode: str = "serve", seq: int = 1, **changes: Any) -> InstanceSpec:
        ref = changes.pop("ref", InstanceRef("env_1", seq))
        bounds = Bounds(**{"memory": 256 << 20, "pids": 64, **changes.pop("limits", {})})
        if ref not in self.started:
            self.started.append(ref)
        command = changes.pop("command", f"exec python3 app.py {mode}")
        return InstanceSpec(ref, self.tree, command, bounds=bounds, **{"stop_grace": 5.0, **changes})

    def start(self, mode: str = "serve", seq: int = 1, **changes: Any) -> InstanceRef:
        spec = self.spec(mode, seq, **changes)
        self.driver.ensure(spec)
        return spec.ref

    def serve(self, mode: str = "serve", seq: int = 1, **changes: Any) -> InstanceRef:
        """Started, and answering."""
        ref = self.start(mode, seq, **changes)
        until(lambda: self.answers(ref), f"{ref} never answered: {self.driver.status(ref)} {self.lines(ref)}")
        return ref

    def dial(self, ref: InstanceRef) -> socket.socket:
        endpoint = self.driver.status(ref).endpoint
        assert endpoint is not None, f"{ref} has no endpoint"
        kind, _, place = endpoint.partition(":")
        if kind == "unix":
            one = socket.socket(socket.AF_UNIX)
            one.settimeout(PATIENCE)
            try:
                one.connect(place)
            except OSError:
                one.close()
                raise
            return one
        host, _, port = place.rpartition(":")
        return socket.create_connection((host, int(port)), PATIENCE)

    def get(self, ref: InstanceRef, path: str = "/", /, **asked: object) -> bytes:
        """The body. Errors: OSError, http.client.HTTPException."""
        query = "&".join(f"{key}={quote(str(value), safe='')}" for key, value in asked.items())
        connection = http.client.HTTPConnection("localhost")
        connection.sock = self.dial(ref)
        try:
            connection.request("GET", f"{path}?{query}")
            return connection.getresponse().read()
        finally:
            connection.close()

    def text(self, ref: InstanceRef, path: str = "/", /, **asked: object) -> str:
        return self.get(ref, path, **asked).decode()

    def answers(self, ref: InstanceRef) -> bool:
        try:
            return bool(self.get(ref))
        except (OSError, http.client.HTTPException, AssertionError):
            return False

    def until_state(self, ref: InstanceRef, *states: str) -> Status:
        def look() -> Status | None:
            found = self.driver.status(ref)
            return found if found.state in states else None

        return until(look, f"{ref} is not {states}: {self.driver.status(ref)} {self.lines(ref)}")

    def lines(self, ref: InstanceRef, stream: str | None = None) -> list[str]:
        return [one.line for one in self.driver.logs(ref, limit=1_000_000) if stream in (None, one.stream)]

    def until_line(self, ref: InstanceRef, part: str, stream: str | None = None) -> str:
        return until(
            lambda: next((line for line in self.lines(ref, stream) if part in line), None),
            f"no line with {part!r}, the last are {self.lines(ref)[-5:]}",
        )

    def close(self) -> None:
        for ref in self.started:
            self.driver.stop(ref, 0.0)
            self.driver.remove(ref)


def environment_of(stage: Stage, ref: InstanceRef) -> dict[str, str]:
    found: dict[str, str] = json.loads(stage.get(ref, "/env"))
    return found
