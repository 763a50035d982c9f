"""One component's process: start it, adopt it from an earlier supervisor, stop it. Never a second copy.

Whoever runs holds `run/<name>.lock` through an inherited descriptor, so the lock ends with the process and not with
the supervisor; `run/<name>.json` says who it is.
"""

from __future__ import annotations

import json
import os
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

from headway._launch import python_path
from headway.errors import HeadwayError
from headway.supervisor import identity, locks, nursery
from headway.supervisor.becoming import User
from headway.supervisor.folder import Folder, read_record, write_json
from headway.supervisor.logs import rotate
from headway.supervisor.plan import Component

NURSERY_SOCKET: Final = "nursery.sock"
BOOT: Final = "import sys; sys.path.insert(0, sys.argv.pop(1)); from headway.supervisor.becoming import main; main()"


@dataclass
class Process:
    """A running component. `child` is None for one that came out of the nursery, or was adopted."""

    name: str
    pid: int
    pidfd: int
    fingerprint: str
    child: subprocess.Popen[bytes] | None = None
    adopted: bool = False

    def dead(self, timeout: float = 0.0) -> bool:
        """Whether it has ended, waiting up to `timeout` seconds."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def kill_group(self) -> None:
        """End what is left of its process group, the leader included."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def bury(self) -> str:
        """After its death: end its group, reap it, and say how it ended."""
        self.kill_group()
        try:
            if self.child is not None:
                return how(self.child.wait())
            ended = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
            status = ended.si_status if ended else 0
            return how(status if ended and ended.si_code == os.CLD_EXITED else -status)
        except ChildProcessError:
            # An earlier supervisor's child: only its own parent is told how it ended.
            return "ended"
        finally:
            os.close(self.pidfd)


def how(returncode: int) -> str:
    """`exit code 3`, or `killed by SIGKILL`."""
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


def start(component: Component, folder: Folder, *, own_nursery: bool = False) -> Process:
    """Start a component that does not run; raises `stack.start_failed` if it cannot be executed, or does run.

    `own_nursery`: the nursery is this process's child, which therefore learns how a task out of it has ended.
    """
    lock = locks.try_lock(folder.lock(component.name))
    if lock is None:
        raise HeadwayError("stack.start_failed", f"{component.name} runs already: its lock is held.")
    try:
        environment = component.environment(folder)
        _make_own(component, folder)
        with suppress(FileNotFoundError):
            folder.ready(component.name).unlink()
        _clear(component.leftovers)
        rotate(folder.log(component.name))
        with folder.log(component.name).open("ab") as log:
            forked = None
            if component.nursery and (own_nursery or not component.once):
                forked = _fork(component, folder, environment, lock, log)
            process = forked or _execute(component, environment, lock, log)
    except OSError as error:
        what = error.filename or component.argv[0]
        raise HeadwayError(
            "stack.start_failed", f"{component.name} cannot be started: {what}: {error.strerror}."
        ) from None
    finally:
        os.close(lock)
    facts = {
        "fingerprint": process.fingerprint,
        "argv": list(component.argv),
        "began": time.time(),
        # For a `down` or an `up` that cannot read the plan any more.
        "tier": component.tier,
        "grace": component.grace,
        "ports": component.ports,
    }
    # Without the note (a full disk) the next supervisor ends the process and starts it anew.
    with suppress(OSError):
        write_json(folder.record(component.name), {**identity.describe(process.pid), **facts})
    return process


def _make_own(component: Component, folder: Folder) -> None:
    """Its folder for sockets, which it owns; what an earlier run under another uid left goes with the change."""
    own, user = folder.own(component.name), component.user
    own.mkdir(mode=0o700, exist_ok=True)
    if user is not None and own.stat().st_uid != user.uid:
        for path in (*own.iterdir(), own):
            os.chown(path, user.uid, user.uid, follow_symlinks=False)


def _clear(sockets: Iterable[str]) -> None:
    """The lock is held: whoever listened there is gone."""
    for path in sockets:
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)


def becoming(user: User) -> tuple[str, ...]:
    """Words in front of a command that is to run as the user; they work under root alone."""
    return (sys.executable, "-I", "-S", "-c", BOOT, python_path(), json.dumps(asdict(user)))


def _execute(component: Component, environment: dict[str, str], lock: int, log: IO[bytes]) -> Process:
    child = subprocess.Popen(
        component.argv if component.user is None else (*becoming(component.user), *component.argv),
        env=environment,
        cwd=component.cwd,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=(lock,),
        umask=component.umask,
    )
    return Process(component.name, child.pid, os.pidfd_open(child.pid), component.fingerprint(), child)


def _fork(
    component: Component, folder: Folder, environment: dict[str, str], lock: int, log: IO[bytes]
) -> Process | None:
    """A process out of the nursery; None where it has none to give, and the component is executed instead."""
    with os.fdopen(os.memfd_create("environment"), "w+b") as passed:
        passed.write(json.dumps(environment).encode())
        passed.flush()
        passed.seek(0)
        user = asdict(component.user) if component.user is not None else None
        facts = {"cwd": component.cwd, "umask": component.umask, "user": user}
        words = list(component.argv[component.argv.index("headway") + 1 :])
        try:
            descriptors = [lock, log.fileno(), passed.fileno()]
            pid = nursery.ask(folder.path("run", NURSERY_SOCKET), component.name, words, facts, descriptors)
            return Process(component.name, pid, os.pidfd_open(pid), component.fingerprint())
        except OSError:
            return None


def adopt(name: str, folder: Folder) -> Process | None:
    """The process that runs under the component's lock; None if nothing does.

    Somebody who holds the lock without a record that fits (a supervisor died between the start and its note) is
    ended: nobody can say what it is.
    """
    free = locks.try_lock(folder.lock(name))
    if free is not None:
        os.close(free)
        return None
    record = read_record(folder.record(name))
    pidfd = identity.open_process(record)
    if pidfd is not None:
        return Process(name, int(record["pid"]), pidfd, str(record.get("fingerprint", "")), adopted=True)
    evict(folder.lock(name))
    return None


def evict(lock: Path) -> None:
    """Kill whoever holds a lock and wait until it is free; raises `stack.start_failed` after 5 s."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        free = locks.try_lock(lock)
        if free is not None:
            os.close(free)
            return
        for pid in locks.holders(lock):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    raise HeadwayError("stack.start_failed", f"{lock} is held by a process that cannot be ended: stop it by hand.")


def stop(processes: list[tuple[Process, float]], interrupted: Any = None) -> list[str]:
    """SIGTERM to all, then SIGKILL to each that outlives its grace (seconds); returns the names that were killed.

    `interrupted` is a function that says whether somebody is in a hurry: then the graces end at once.
    """
    began = time.monotonic()
    for process, _ in processes:
        process.signal(signal.SIGTERM)
    waiting, killed = list(processes), []
    while waiting:
        for process, grace in list(waiting):
            if process.dead():
                process.bury()
                waiting.remove((process, grace))
            elif time.monotonic() - began > grace or (interrupted is not None and interrupted()):
                killed.append(process.name)
                process.kill_group()
                process.dead(5.0)
        if waiting:
            poll = select.poll()
            for process, _ in waiting:
                poll.register(process.pidfd, select.POLLIN)
            poll.poll(100)
    return list(dict.fromkeys(killed))
