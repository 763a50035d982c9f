"""The door of an instance: a process beside the app, in its network, that takes what comes to the endpoint.

For drivers whose supervisor is not ours. It runs this file with this machine's own Python, both shown to it read-only,
and needs nothing else of Headway. SIGTERM closes the door: what is connected goes on, and the process ends when nothing
is left to be sent.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from adapters.runtime.process import control
from adapters.runtime.process.loop import READ, Loop
from adapters.runtime.process.relay import Relay

# Where the door finds what it needs.
CODE, PYTHON, FOLDER, SOCKET = "/headway/code", "/headway/python", "/headway/door", "s"
BOOT = f"import sys; sys.path[:0] = ['{CODE}']; from adapters.runtime.door import main; main()"
SETTLE = 0.05
OPENS_SECONDS, LOOK = 15.0, 0.01


def command(port: int, mode: int) -> list[str]:
    """What is run: isolated, and without what is installed beside Python."""
    inside = f"{PYTHON}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    return [inside, "-I", "-S", "-B", "-c", BOOT, str(port), f"{mode:o}"]


def shown() -> list[tuple[Path, str]]:
    """This machine's Python, what it links to, and the room of ours that the door imports: what, and where."""
    code = Path(__file__).resolve().parent.parent
    shared = [Path("/usr"), *(Path("/", name) for name in ("lib", "lib64") if Path("/", name).exists())]
    python = Path(os.path.realpath(sys.base_prefix))
    return [*((path, str(path)) for path in shared), (python, PYTHON), (code, f"{CODE}/adapters")]


def folder_of(state: Path, name: str, owner: int | None) -> Path:
    """The folder of one endpoint, made where it is not there: whoever routes passes it, nobody else's door sees it."""
    folder = state / "d" / name
    for one in (folder.parent, folder):
        one.mkdir(mode=0o711, exist_ok=True)
        one.chmod(0o711)
    if owner is not None:
        os.chown(folder, owner, owner)
    return folder


def until_open(path: Path) -> None:
    """Wait for the endpoint to be there. Whether anybody answers behind it is asked by who judges health."""
    deadline = time.monotonic() + OPENS_SECONDS
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(LOOK)


def main() -> None:
    """Until SIGTERM, and then until what is connected has ended."""
    port, mode = int(sys.argv[-2]), int(sys.argv[-1], 8)
    loop = Loop()
    relay = Relay(loop, control.listen(f"{FOLDER}/{SOCKET}", mode), port)
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)

    def settle() -> None:
        if relay.unsent:
            loop.after(SETTLE, settle)
        else:
            loop.stop()

    def woken(_: int) -> None:
        os.read(reader, 64)
        relay.close_door()
        settle()

    loop.watch(reader, READ, woken)
    loop.run()
    relay.close()
