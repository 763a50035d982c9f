"""A stack of small stand-ins: the supervisor's behaviour without the weight of the platform."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headway.cli.down import stop_stack
from headway.supervisor import identity, tenure
from headway.supervisor.folder import Folder, open_folder, read_record
from headway.supervisor.plan import Component, Plan
from headway.supervisor.ports import find_free_block
from headway.supervisor.twin import TWIN, command, end_stray

SERVER = """
import http.server, os, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(str(os.getpid()).encode())
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


def server(name: str, port: int, **facts: Any) -> Component:
    """Answers each GET with its pid."""
    return Component(
        name=name,
        argv=(sys.executable, "-S", "-c", SERVER, str(port)),
        ready=(f"http://127.0.0.1:{port}/",),
        ports={name: port},
        **facts,
    )


def task(name: str, log: Path, **facts: Any) -> Component:
    """Notes that it ran, and is done."""
    return Component(name=name, argv=("sh", "-c", f"echo {name} >> {log}"), once=True, **facts)


def eventually(true: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The first true value of a condition."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := true():
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s: {true}")


class Stack:
    """One folder with a plan, brought up by the supervisor's own entry point."""

    def __init__(self, root: Path) -> None:
        self.folder: Folder = open_folder(root)
        self.block = find_free_block()
        self.ran = root / "ran"
        self.children: list[subprocess.Popen[str]] = []

    def plan(self, *components: Component) -> None:
        Plan(components, endpoints={"api": self.block.origin("api")}).write(self.folder)

    def up(self, mode: str = tenure.DETACHED) -> subprocess.Popen[str]:
        lock = tenure.take(self.folder, patience=20)
        end_stray(self.folder)
        tenure.want(self.folder, tenure.UP)
        receiver, sender = os.pipe()
        child = subprocess.Popen(
            command(self.folder, mode, str(lock), str(sender)), pass_fds=(lock, sender), start_new_session=True
        )
        os.close(lock)
        os.close(sender)
        self.receiver = receiver
        self.children.append(child)
        return child

    def healthy(self) -> dict[str, Any]:
        return eventually(lambda: (one := tenure.current(self.folder)).get("state") == "healthy" and one, 60)

    def pid(self, name: str) -> int:
        """The living process of a component, or of the supervisor or its twin."""
        return int(eventually(lambda: identity.alive(one := read_record(self.folder.record(name))) and one["pid"]))

    def kill(self, name: str) -> int:
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    def successor(self, name: str, before: int) -> int:
        """The next living process after `before`."""
        return int(
            eventually(
                lambda: (
                    identity.alive(one := read_record(self.folder.record(name))) and one["pid"] != before and one["pid"]
                )
            )
        )

    def said(self) -> str:
        return self.folder.log("supervisor").read_text()

    def close(self) -> None:
        stop_stack(self.folder)
        for child in self.children:
            child.wait(60)
        os.close(self.receiver)
        alive = [name for name in (TWIN, "supervisor") if identity.alive(read_record(self.folder.record(name)))]
        assert not alive, f"{alive} outlived `down`"
