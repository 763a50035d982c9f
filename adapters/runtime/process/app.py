"""One run of the app: from the words in front of bubblewrap to the moment when nothing of it is left."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.runtime.process.loop import READ, Loop
from adapters.runtime.process.recipe import PLACE, Recipe

if TYPE_CHECKING:
    from adapters.cgroup import Cgroup
    from adapters.runtime.process.log import LogWriter
    from adapters.runtime.process.loop import Timer

MARK = "HEADWAY_INSTANCE"
TOOLS = "/usr/sbin:/usr/bin:/sbin:/bin"
# As in adapters/sandbox/launch.py, which a keeper does not load: a line lets the command go, the end of a pipe not.
GATE = 'read -r go || [ "$go" ] || exit 125; exec "$@" </dev/null'
# What is given to one run is its standard input, so that the line comes by another descriptor: of one digit, as dash
# knows no others. No pipe: a keeper that was killed would end what is read, and half of it would look whole.
GIVING_GATE = 'read -r go <&{0} || [ "$go" ] || exit 125; exec "$@" {0}<&-'
CHUNK = 1 << 16
# The keeper is under none of the app's limits, so what an app prints has a share of a processor: so many seconds at
# once, and this part of all the time. Whoever prints more waits, as with any slow reader.
PRINTED_AT_ONCE, PRINTED_SHARE = 1.0, 0.2
GONE_SECONDS = 10.0
TRIES, TRY_SECONDS = 200, 0.005
SHELLS = ("sh", "dash", "bash", "ash", "ksh", "zsh")
# They hand a signal to the shell of the script that they run, and end with it.
SCRIPT_RUNNERS = ("npm", "npx", "pnpm", "yarn")
KILLED = 137
LONGEST_NAME = 4096


@dataclass(frozen=True)
class End:
    """`reason` is a sentence where there is more to say than the code."""

    code: int
    reason: str = ""


class App:
    """`begun` is called once with the app's own pid when it runs; `ended` once, when nothing of it is left.

    `low` is a descriptor of one digit that is kept free for a run that is given something.
    """

    def __init__(
        self,
        recipe: Recipe,
        loop: Loop,
        log: LogWriter,
        group: Cgroup | None,
        begun: Callable[[int | None], None],
        ended: Callable[[End], None],
        low: int = -1,
    ) -> None:
        self._recipe, self._loop, self._log, self._group = recipe, loop, log, group
        self._begun, self._ended, self._low = begun, ended, low
        self._files: list[int] = []
        self._status = b""
        self._first: int | None = None  # pidfd of the namespace's first process
        self._first_pid = 0
        self._app: int | None = None  # pidfd
        self._app_pid: int | None = None
        self._why: str = ""
        self._room, self._looked = PRINTED_AT_ONCE, time.monotonic()
        self._resting: dict[int, Timer] = {}

    def start(self, secrets: Mapping[str, str]) -> None:
        """Errors: OSError where the program in front cannot be executed."""
        status, gate = os.pipe(), os.pipe()
        stdin, script = gate[0], GATE
        low: list[int] = []
        try:
            if self._recipe.given is not None:
                stdin, script, low = self._given(), GIVING_GATE.format(self._low), [self._low]
                os.dup2(gate[0], self._low)
            listed = self._hold(
                b"".join(os.fsencode(word) + b"\0" for word in self._options(secrets, status[1], gate[0]))
            )
            self._outer = subprocess.Popen(
                [
                    *(self._group.entering if self._group is not None else ()),
                    *self._recipe.words,
                    "--args",
                    str(listed),
                    "--",
                    "/bin/sh",
                    "-c",
                    script,
                    "gate",
                    *self._recipe.command,
                ],
                pass_fds=[*self._files, status[1], gate[0], *low],
                env={"PATH": TOOLS, MARK: self._recipe.mark},
                cwd="/",
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                umask=0o022,
                bufsize=0,
            )
        except OSError:
            os.close(status[0])
            os.close(gate[1])
            raise
        finally:
            for number in {*self._files, *low, stdin, status[1], gate[0]}:
                os.close(number)
            self._files = []
        self._gate, self._status_end = gate[1], status[0]
        assert self._outer.stdout is not None  # noqa: S101
        assert self._outer.stderr is not None  # noqa: S101
        self._outputs = {self._outer.stdout.fileno(): "stdout", self._outer.stderr.fileno(): "stderr"}
        for number in (*self._outputs, status[0]):
            os.set_blocking(number, False)
            self._listen(number)
        self._exit = os.pidfd_open(self._outer.pid)
        self._loop.watch(self._exit, READ, lambda _: self._finish())

    def terminate(self) -> None:
        """SIGTERM to the app itself; a shell in front of it that would not pass it on is passed by."""
        if self._app is None or self._app_pid is None:
            return self.kill("")
        for pid in term_targets(self._app_pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM)

    def kill(self, why: str) -> None:
        """SIGKILL to everything; `ended` follows."""
        self._why = self._why or why
        if self._first is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first, signal.SIGKILL)
        self._outer.kill()

    def first_process(self) -> int:
        return self._first_pid

    def _given(self) -> int:
        if not 3 <= self._low <= 9:
            raise OSError(errno.EMFILE, "no descriptor of one digit is free")
        return os.open(self._recipe.given or "", os.O_RDONLY | os.O_CLOEXEC)

    def _hold(self, content: bytes) -> int:
        number = os.memfd_create("headway")
        self._files.append(number)
        os.write(number, content)
        os.lseek(number, 0, os.SEEK_SET)
        return number

    def _options(self, secrets: Mapping[str, str], status: int, gate: int) -> list[str]:
        words = []
        for word in self._recipe.options:
            piece = word.removeprefix(PLACE)
            words.append(word if piece == word else str(self._hold(self._recipe.data[int(piece)])))
        for key, value in secrets.items():
            words += ["--setenv", key, value]
        return [*words, "--json-status-fd", str(status), "--block-fd", str(gate)]

    def _listen(self, number: int) -> None:
        self._loop.watch(number, READ, lambda _: self._readable(number))

    def _readable(self, number: int) -> None:
        try:
            data = os.read(number, CHUNK)
        except BlockingIOError:
            return
        if not data:
            return self._loop.forget(number)
        if number != self._status_end:
            self._log.feed(self._outputs[number], data)
            return self._rest(number, time.thread_time() - self._loop.since)
        self._status += data
        if self._first is None and b"\n" in self._status:
            self._open(int(json.loads(self._status.splitlines()[0])["child-pid"]))

    def _rest(self, number: int, spent: float) -> None:
        now = time.monotonic()
        self._room = min(PRINTED_AT_ONCE, self._room + (now - self._looked) * PRINTED_SHARE) - spent
        self._looked = now
        if self._room < 0:
            self._loop.forget(number)
            self._resting[number] = self._loop.after(-self._room / PRINTED_SHARE, lambda: self._listen(number))

    def _open(self, first: int) -> None:
        """It waits at the gate: limits are set before it may go on. For bubblewrap a closed gate is open too, for the
        shell behind it it is not: the app of a keeper that was killed meanwhile never starts.
        """
        try:
            self._first, self._first_pid = os.pidfd_open(first), first
            if self._group is not None:
                self._group.add(first)
            if self._recipe.tasks is not None:
                resource.prlimit(first, resource.RLIMIT_NPROC, (self._recipe.tasks, self._recipe.tasks))
            os.write(self._gate, b"+\n")
        except OSError as error:
            self.kill("" if error.errno == errno.ESRCH else f"its limits cannot be set: {error.strerror}")
        os.close(self._gate)
        self._gate = -1
        self._find(TRIES)

    def _find(self, tries: int) -> None:
        """The app is the first child of the namespace's first process; it appears a moment after the gate opens."""
        if self._first is None or self._outer.returncode is not None:
            return
        if found := children(self._first_pid):
            with contextlib.suppress(OSError):
                self._app, self._app_pid = os.pidfd_open(found[0]), found[0]
        elif tries:
            self._loop.after(TRY_SECONDS, lambda: self._find(tries - 1))
            return
        self._begun(self._app_pid)

    def _finish(self) -> None:
        code = self._outer.wait()
        self._loop.forget(self._exit)
        os.close(self._exit)
        if self._first is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first, signal.SIGKILL)
            waiter = select.poll()
            waiter.register(self._first, select.POLLIN)
            waiter.poll(GONE_SECONDS * 1000)
        events = self._group.events() if self._group is not None else None
        if self._group is not None:
            self._group.kill()
        self._drain()
        for number in (self._first, self._app, self._gate if self._gate >= 0 else None):
            if number is not None:
                os.close(number)
        said = self._exit_code()
        reason = self._why
        if events is not None and events.out_of_memory and said != 0:
            reason = f"out of memory: the limit is {self._recipe.bounds.memory >> 20} MiB"
        elif self._first is None and not reason:
            reason = f"the sandbox did not start: {self._log.last_error}"
        if said is None:
            said = KILLED if code in (0, -signal.SIGKILL) else (128 - code if code < 0 else code)
        self._ended(End(said, reason))

    def _drain(self) -> None:
        """Everyone who could write has gone: read to the end."""
        for timer in self._resting.values():
            timer.cancel()
        for number in (*self._outputs, self._status_end):
            self._loop.forget(number)
            with contextlib.suppress(OSError):
                while data := os.read(number, CHUNK):
                    if number == self._status_end:
                        self._status += data
                    else:
                        self._log.feed(self._outputs[number], data)
        self._log.flush()
        os.close(self._status_end)
        for stream in (self._outer.stdout, self._outer.stderr):
            if stream is not None:
                stream.close()

    def _exit_code(self) -> int | None:
        for line in self._status.splitlines():
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if "exit-code" in said:
                    return int(said["exit-code"])
        return None


def children(pid: int) -> list[int]:
    """Of the main thread of `pid`, oldest first; none where it is not to be seen."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except (OSError, ValueError):
        return []


def term_targets(pid: int) -> list[int]:
    """`pid`, or what it waits for where the signal would end it, and not reach that; so on below."""
    waited_for = children(pid) if _swallows_term(pid) else []
    return [target for child in waited_for for target in term_targets(child)] or [pid]


def _swallows_term(pid: int) -> bool:
    """Whether it is a shell without a trap, or runs one as package managers of Node do."""
    try:
        with open(f"/proc/{pid}/status") as file:
            facts = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = os.fsdecode(file.read(LONGEST_NAME)).split("\0")
    except OSError:
        return False
    # By its arguments: a script's process has the script's own name, and `npm start` is all of npm's first argument.
    names = [word.partition(" ")[0].rpartition("/")[2].removeprefix("-") for word in words[:2]]
    name = names[-1] if names[0] in ("busybox", "node") else names[0]
    catches = int(facts.get("SigCgt", "0"), 16) & 1 << (signal.SIGTERM - 1)
    return (name in SHELLS and not catches) or name.partition(".")[0].removesuffix("-cli") in SCRIPT_RUNNERS
