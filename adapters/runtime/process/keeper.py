"""The process beside each instance that starts it, relays to it, writes its log and starts it again.

It is no child of the worker and needs nothing of Headway while it runs: it was told everything at its start. One
thread, one loop; that thread is in the instance's own network namespace, so what it dials is the app and what it
starts is in there too. The lock it was given is held until it ends; `state.json` says what it last knew.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.runtime.process import control, identity, network
from adapters.runtime.process.app import App, End
from adapters.runtime.process.log import LogWriter
from adapters.runtime.process.loop import READ, Loop, Timer
from adapters.runtime.process.opening import CannotOpen, Opened, open_configuration
from adapters.runtime.process.recipe import Recipe
from adapters.runtime.process.relay import Relay

if TYPE_CHECKING:
    import socket

    from adapters.cgroup import Cgroup
    from adapters.runtime.process.outside import WayOut
    from adapters.sandbox.watch import TreeWatch

LOOK = 0.5  # seconds between two looks at refusals and limits
WHOLE = 20  # so seldom one of these looks, where no cgroup limits, goes over all processes of the machine
SETTLE = 0.02  # between two looks whether the last connections are through


class Keeper:
    def __init__(self, recipe: Recipe, way_out: WayOut | None, low: int = -1) -> None:
        self._recipe, self._way_out, self._low = recipe, way_out, low
        self._folder = Path(recipe.folder)
        self._loop = Loop()
        self._log = LogWriter(self._folder, recipe.bounds.log)
        self._group: Cgroup | None = None
        self._app: App | None = None
        self._watch: TreeWatch | None = None
        self._again: Timer | None = None
        self._stop_by: float | None = None
        self._deaths = 0
        self._began = 0.0
        self._pids_said = self._memory_said = False
        self._relay: Relay | None = None
        self._control: control.Control | None = None
        self._state: dict[str, Any] = {
            **identity.describe(os.getpid()),
            "state": "starting",
            "pid": None,
            "restarts": 0,
            "exit_code": None,
            "reason": "",
            "since": time.time(),
        }

    def listen(self) -> None:
        """Take the doors. Errors: OSError."""
        recipe = self._recipe
        if recipe.socket is not None and recipe.port is not None:
            self._relay = Relay(self._loop, self._door(recipe.socket), recipe.port)
        self._control = control.Control(self._loop, control.listen(recipe.control, 0o600), self._answer)
        self._signals()
        self._save()

    def _door(self, path: str) -> socket.socket:
        return control.listen(path, self._recipe.socket_mode, self._recipe.socket_gid)

    def _keep_doors(self) -> None:
        """Who removes a socket's name leaves behind what nobody can dial any more: it gets its name back."""
        recipe = self._recipe
        with contextlib.suppress(OSError):
            if self._relay is not None and recipe.socket is not None and not os.path.lexists(recipe.socket):
                self._relay.move(self._door(recipe.socket))
                self._log.say("its socket was removed: it is there again")
            if self._control is not None and not os.path.lexists(recipe.control):
                self._control.move(control.listen(recipe.control, 0o600))

    def run(self) -> None:
        """Until the instance is stopped, or its one run is over."""
        if self._recipe.once is not None:
            self._loop.after(self._recipe.once, lambda: self._kill("it ran out of time"))
        self._loop.after(LOOK, self._look)
        self._start()
        self._loop.run()
        self._log.close()

    def _start(self) -> None:
        self._again = None
        self._began = time.monotonic()
        self._set("crash_loop" if self._crashing else "starting")
        try:
            opener = self._recipe.opener
            opened = open_configuration(opener) if opener is not None else Opened({}, {})
            self._log.hide(opened.hidden)
            self._make_group()
            self._pids_said = self._memory_said = False
            self._app = App(self._recipe, self._loop, self._log, self._group, self._running, self._ended, self._low)
            self._app.start(opened.values)
        except (CannotOpen, OSError) as error:
            self._app = None
            self._ended(End(126, str(error)))

    def _make_group(self) -> None:
        if self._recipe.cgroup is None:
            return
        from adapters.cgroup import Cgroups

        version, bases, name = self._recipe.cgroup
        groups = Cgroups(version, {key: Path(base) for key, base in bases.items()})
        self._group = groups.make(name, self._recipe.bounds, 1.0, whole=False)

    def _running(self, pid: int | None) -> None:
        if self._app is not None and (self._group is None or "memory" not in self._group.folders):
            from adapters.sandbox.watch import TreeWatch

            self._watch = TreeWatch(self._app.first_process(), self._recipe.bounds, whole=WHOLE)
        if self._state["state"] != "stopping":
            self._set("crash_loop" if self._crashing else "running", pid=pid)

    def _ended(self, end: End) -> None:
        self._app = self._watch = None
        if self._group is not None:
            self._group.remove()
        calm = time.monotonic() - self._began >= self._recipe.pace.calm
        self._deaths = 1 if calm else self._deaths + 1
        said = f"exit code {end.code}" + (f", {end.reason}" if end.reason else "")
        self._state |= {"pid": None, "exit_code": end.code, "reason": end.reason}
        if self._stop_by is not None:
            self._log.say(f"stopped: {said}")
            return self._leave()
        if self._recipe.once is not None:
            if end.reason:
                self._log.say(end.reason)
            return self._leave()
        pause = self._recipe.pace.pause(self._deaths)
        self._log.say(f"ended: {said}; it is started again in {pause:g} s")
        self._state["restarts"] += 1
        self._set("crash_loop" if self._crashing else "backoff", reason=end.reason or f"exit code {end.code}")
        self._again = self._loop.after(pause, self._start)

    @property
    def _crashing(self) -> bool:
        return self._deaths >= self._recipe.pace.deaths

    def _stop(self, grace: float) -> None:
        if self._relay is not None:
            self._relay.close_door()
            with contextlib.suppress(OSError):
                os.unlink(self._recipe.socket or "")
        by = time.monotonic() + max(0.0, grace)
        first = self._stop_by is None
        self._stop_by = by if self._stop_by is None else min(self._stop_by, by)
        if self._app is None:
            if self._again is not None:
                self._again.cancel()
            return self._leave()
        if first:
            self._set("stopping")
            self._app.terminate()
        self._loop.after(max(0.0, by - time.monotonic()), lambda: self._kill("it outlived its grace and was killed"))

    def _kill(self, why: str) -> None:
        if self._app is not None:
            self._app.kill(why)

    def _leave(self) -> None:
        """The app is gone: what it has sent already still goes out, as long as the grace lasts."""
        if self._relay is not None and self._relay.unsent and time.monotonic() < (self._stop_by or 0.0):
            self._loop.after(SETTLE, self._leave)
            return
        if self._relay is not None:
            self._relay.close()
        for path in (self._recipe.socket, self._recipe.control):
            with contextlib.suppress(OSError):
                os.unlink(path or "")
        self._set("stopped")
        self._loop.stop()

    def _look(self) -> None:
        self._loop.after(LOOK, self._look)
        self._log.settle()
        for line in self._way_out.notices() if self._way_out is not None else ():
            self._log.say(line)
        if self._stop_by is None:
            self._keep_doors()
        if self._app is None:
            return
        if self._watch is not None and (limit := self._watch.exceeded()):
            self._app.kill(
                f"{limit.replace('_', ' ')}: the limit is {self._recipe.bounds.memory >> 20} MiB, "
                f"{self._recipe.bounds.pids} processes"
            )
        if self._group is not None:
            events = self._group.events()
            if events.out_of_memory and not self._memory_said:
                self._memory_said = True
                self._log.say(f"out of memory: a process was killed at {self._recipe.bounds.memory >> 20} MiB")
            if events.out_of_pids and not self._pids_said:
                self._pids_said = True
                self._log.say(f"too many processes: the limit is {self._recipe.bounds.pids}")
        if self._state["state"] == "crash_loop" and time.monotonic() - self._began >= self._recipe.pace.calm:
            self._deaths = 0
            self._set("running")

    def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked.get("op") == "stop":
            self._stop(float(asked.get("grace", self._recipe.stop_grace)))
        return {**self._state, "connections": self._relay.connections if self._relay is not None else 0}

    def _signals(self) -> None:
        """SIGTERM (the machine goes down) is a stop; nothing else of a terminal's reaches a session of its own."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: None)

        def woken(_: int) -> None:
            if signal.SIGTERM in os.read(reader, 64):
                self._stop(self._recipe.stop_grace)

        self._loop.watch(reader, READ, woken)

    def _set(self, state: str, **facts: Any) -> None:
        if state != self._state["state"]:
            self._state["since"] = time.time()
        self._state |= {"state": state, **facts}
        self._save()

    def _save(self) -> None:
        path = self._folder / "state.json"
        fresh = path.with_suffix(".new")
        with contextlib.suppress(OSError):  # a full disk: the control socket still knows
            fresh.write_text(json.dumps(self._state))
            fresh.replace(path)


def main() -> None:
    """The recipe on stdin, `ready` or a complaint on stdout; the rest goes on in the background."""
    recipe = Recipe.load(sys.stdin.buffer.read())
    if os.fork():
        os._exit(0)
    ready = os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    # Taken while there are some: one of one digit, for a run that is given something.
    low = fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, 3) if recipe.given is not None else -1
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.umask(0o077)
    os.chdir("/")
    try:
        keeper = _prepare(recipe, low)
    except OSError as error:
        os.write(ready, f"{error.strerror or error}: {error.filename or 'the keeper'}\n".encode())
        os._exit(1)
    os.write(ready, b"ready\n")
    os.close(ready)
    keeper.run()
    os._exit(0)  # the way out has a thread that nobody waits for


def _prepare(recipe: Recipe, low: int) -> Keeper:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    way_out = None
    if not network.may_make_one():
        network.own_user_namespace()
    if recipe.outside is not None:
        from adapters.runtime.process.outside import WayOut

        way_out = WayOut(recipe.outside)
    network.own_network()
    if way_out is not None:
        way_out.open()
    keeper = Keeper(recipe, way_out, low)
    keeper.listen()
    return keeper
