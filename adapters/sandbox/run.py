"""One run from its start to the moment when nothing of it is left.

The child waits behind a gate until its cgroup, its limits and its way out are in place; then one loop reads what it
prints, looks at limits and at cancellation, and kills the whole tree when it must.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adapters.cgroup import Cgroup
from adapters.egress.proxy import EgressProxy
from adapters.sandbox.command import Limit, Limits, Outcome
from adapters.sandbox.tree import Tree
from adapters.sandbox.watch import INTERVAL, DiskWatch, TreeWatch
from headway.errors import HeadwayError

OnOutput = Callable[[str, bytes], None]
TICK = 0.1
CHUNK = 1 << 16
PIPE_SIZE = 1 << 20
END_SECONDS = 15.0
KILLED, NOT_FOUND = 137, 127  # as shells say it
TOO_LARGE = 128 + signal.SIGXFSZ  # a file past its limit, sparse or not


@dataclass
class Plan:
    """`words` start the child; it reports its first process on `status` and waits on `gate`.

    `opened` is called with that process while it waits: the last thing before the gate opens. `clear` ends what a run
    that was ended before it had reported may have left, and says whether nothing is left.
    """

    words: Sequence[str]
    pass_fds: Sequence[int]
    env: dict[str, str]
    limits: Limits
    tree: Callable[[subprocess.Popen[bytes], int], Tree]
    opened: Callable[[int], None]
    disk: DiskWatch
    cgroup: Cgroup | None = None
    egress: EgressProxy | None = None
    cwd: str | None = None
    reports: bool = True
    stdin: int = subprocess.DEVNULL
    clear: Callable[[], bool] = lambda: True


class Pipes:
    """`status`: the child writes, we read. `gate`: we write, the child reads. Each end is closed once only:
    another thread may get the same number a moment later."""

    def __init__(self) -> None:
        self.status, self.gate = os.pipe(), os.pipe()
        self._open = {*self.status, *self.gate}

    def close(self, *numbers: int) -> None:
        for number in numbers or tuple(self._open):
            if number in self._open:
                self._open.discard(number)
                os.close(number)


class Run:
    """`go` once. `on_output` and `canceled` are called from the calling thread only."""

    def __init__(self, plan: Plan, pipes: Pipes, on_output: OnOutput, canceled: Callable[[], bool]) -> None:
        self._plan, self._pipes = plan, pipes
        self._say, self._asked = on_output, canceled
        self._tree: Tree | None = None
        self._watch: TreeWatch | None = None
        self._limit: Limit | None = None
        self._canceled = False
        self._printed = 0
        self._status = b""
        self._complaint = b""

    def go(self) -> Outcome:
        """Errors: `internal.error` if the sandbox did not start, or something survived SIGKILL."""
        started = time.monotonic()
        plan, pipes = self._plan, self._pipes
        child = subprocess.Popen(
            plan.words,
            pass_fds=plan.pass_fds,
            env=plan.env,
            cwd=plan.cwd,
            stdin=plan.stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        pipes.close(pipes.status[1], pipes.gate[0])
        try:
            with child, selectors.DefaultSelector() as selector:
                try:
                    if not plan.reports:
                        self._open(child, child.pid)
                    self._loop(child, selector, started + plan.limits.wall)
                finally:
                    self._end(child)
                self._drain(selector)
        finally:
            if self._tree is not None:
                self._tree.close()
        return self._outcome(child, started)

    def _loop(self, child: subprocess.Popen[bytes], selector: selectors.BaseSelector, deadline: float) -> None:
        assert child.stdout is not None  # noqa: S101
        assert child.stderr is not None  # noqa: S101
        for stream, name in ((child.stdout, "stdout"), (child.stderr, "stderr")):
            with contextlib.suppress(OSError):
                fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
            selector.register(stream.fileno(), selectors.EVENT_READ, name)
        if self._plan.reports:
            selector.register(self._pipes.status[0], selectors.EVENT_READ, "status")
        exit_handle = os.pidfd_open(child.pid)
        selector.register(exit_handle, selectors.EVENT_READ, "exit")
        look = asked = 0.0
        try:
            while True:
                names = [self._event(selector, key, child) for key, _ in selector.select(TICK)]
                now = time.monotonic()
                if now - asked >= TICK:
                    asked = now
                    self._notices()
                    self._canceled = self._canceled or self._asked()
                if self._limit is None and now >= deadline:
                    self._limit = "timeout"
                if self._limit is None and now - look >= INTERVAL:
                    look = now
                    self._limit = self._exceeded()
                if "exit" in names or self._limit is not None or self._canceled:
                    return
        finally:
            selector.unregister(exit_handle)
            os.close(exit_handle)

    def _event(
        self, selector: selectors.BaseSelector, key: selectors.SelectorKey, child: subprocess.Popen[bytes]
    ) -> str:
        name = str(key.data)
        if name == "exit":
            return name
        data = os.read(key.fd, CHUNK)
        if not data:
            selector.unregister(key.fd)
        elif name == "status":
            self._status += data
            if self._tree is None and b"\n" in self._status:
                self._open(child, json.loads(self._status.splitlines()[0])["child-pid"])
        else:
            self._emit(name, data)
        return name

    def _open(self, child: subprocess.Popen[bytes], first: int) -> None:
        self._tree = self._plan.tree(child, first)
        try:
            if self._plan.cgroup is not None:
                self._plan.cgroup.add(first)
            if self._plan.cgroup is None or "memory" not in self._plan.cgroup.folders:
                self._watch = TreeWatch(first, self._plan.limits)
            self._plan.disk.follow(first)
            self._plan.opened(first)
        except ProcessLookupError:
            return  # it has ended already: the loop sees why
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise HeadwayError("internal.error", f"the sandbox could not be set up: {error}") from error
            return
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            os.write(self._pipes.gate[1], b"+\n")

    def _emit(self, name: str, data: bytes) -> None:
        room = self._plan.limits.log - self._printed
        if len(data) > room:
            self._limit = self._limit or "log_too_large"
            data = data[: max(0, room)]
        self._printed += len(data)
        if name == "stderr":
            self._complaint = (self._complaint + data)[-500:]
        if data:
            self._say(name, data)

    def _notices(self) -> None:
        if self._plan.egress is not None:
            for line in self._plan.egress.notices():
                self._say("system", f"{line}\n".encode())

    def _exceeded(self) -> Limit | None:
        if self._plan.cgroup is not None:
            events = self._plan.cgroup.events()
            if events.out_of_memory:
                return "out_of_memory"
            if events.out_of_pids:
                return "too_many_processes"
        if self._watch is not None and (limit := self._watch.exceeded()):
            return limit
        return "disk_full" if self._plan.disk.full() else None

    def _end(self, child: subprocess.Popen[bytes]) -> None:
        """Nothing is left when this returns."""
        self._pipes.close(self._pipes.gate[1])
        survived = False
        if self._tree is None:
            child.kill()
            child.wait()
            survived = not self._plan.clear()
        else:
            self._tree.kill()
            survived = not self._tree.gone(END_SECONDS)
        if self._plan.cgroup is not None:
            self._plan.cgroup.kill()
        if survived:
            raise HeadwayError("internal.error", "processes of a run outlived SIGKILL")

    def _drain(self, selector: selectors.BaseSelector) -> None:
        """Everyone who could write has gone: read to the end."""
        deadline = time.monotonic() + END_SECONDS
        while selector.get_map() and time.monotonic() < deadline:
            for key, _ in selector.select(TICK):
                data = os.read(key.fd, CHUNK)
                if not data:
                    selector.unregister(key.fd)
                elif key.data == "status":
                    self._status += data
                else:
                    self._emit(str(key.data), data)

    def _outcome(self, child: subprocess.Popen[bytes], started: float) -> Outcome:
        code = child.returncode
        code = 128 - code if code < 0 else code
        peak = self._watch.peak if self._watch is not None else None
        if self._plan.cgroup is not None:
            events = self._plan.cgroup.events()
            peak = events.peak if events.peak is not None else peak
            if self._limit is None and not self._canceled:
                self._limit = "out_of_memory" if events.out_of_memory else None
                self._limit = self._limit or ("too_many_processes" if events.out_of_pids else None)
        stopped = code == TOO_LARGE or self._plan.disk.full(thorough=True)
        if self._limit is None and not self._canceled and stopped:
            self._limit = "disk_full"
        if self._limit is None and not self._canceled and self._plan.reports and b'"exit-code"' not in self._status:
            text = self._complaint.decode(errors="replace").strip()
            if not text.startswith("bwrap: execvp"):
                raise HeadwayError("internal.error", f"the sandbox did not start, or was ended from outside: {text}")
            code = NOT_FOUND
        denied: tuple[str, ...] = ()
        if self._plan.egress is not None:
            self._plan.egress.stop()
            self._notices()
            denied = self._plan.egress.denied
        if self._limit is not None:
            self._canceled = False
        if self._limit is not None or self._canceled:
            code = KILLED
        return Outcome(code, time.monotonic() - started, self._limit, self._canceled, peak, denied)
