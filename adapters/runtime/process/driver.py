"""The embedded driver: starts keepers, finds them again, and asks them.

Nothing is remembered in this process: the lock that a keeper holds says that it lives, its control socket says how it
is, its folder says what it was. Any process on the same state folder sees the same instances.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from adapters import cgroup
from adapters.runtime.driver import MOST_LINES, Capabilities, InstanceRef, InstanceSpec, Lines, LogLine, Status
from adapters.runtime.process import control, identity, log, view
from adapters.runtime.process.app import MARK
from adapters.runtime.process.places import Places
from adapters.runtime.process.recipe import Opener, Pace, Recipe
from adapters.runtime.process.uids import uid_of
from adapters.sandbox import capability, certificates
from adapters.sandbox.removal import hand_over, remove_tree
from headway import _launch
from headway.errors import HeadwayError

OPENER = "adapters.config.sealed:open_sealed"
ROOTS = (str(_launch.app_root()), str(Path(_launch.__file__).resolve().parent.parent))
BOOT = "import sys; sys.path[:0] = sys.argv[1:3]; from adapters.runtime.process.keeper import main; main()"
TRY = "import sys; sys.path[:0] = sys.argv[1:3]; from adapters.runtime.process.network import enter; enter()"
START_SECONDS = 30.0
EXTRA_SECONDS = 15.0  # beyond a stop's grace, for the kernel to end and reap everything
LOOK, SELDOM, SHOWS = 0.01, 0.2, 0.02


@dataclass(frozen=True)
class Setup:
    """What the operator decides. `key_file` opens sealed configurations; `opener` is `module:name` of who does it.

    `toolchains` are shown read-only at their own paths, their `bin` first on PATH. `private_ok` are names of egress
    rules that may have an address that is not public; `host_sockets` are paths, or folders, that `unix:` may name.
    Endpoints have `socket_mode` and, if not -1, the group `socket_gid`: whoever routes to them must be able to connect.
    """

    state: Path
    key_file: Path | None = None
    toolchains: Sequence[Path] = ()
    private_ok: frozenset[str] = frozenset()
    host_sockets: Sequence[Path] = ()
    ca_files: Sequence[Path] = ()
    bwrap: Path | None = None
    socket_mode: int = 0o666
    socket_gid: int = -1
    opener: str = OPENER
    pace: Pace = field(default_factory=Pace)


class ProcessDriver:
    """`RuntimeDriver` with keepers. Errors of `ensure` and `run_once` beside those: `runtime.egress_refused`."""

    counts_lines = True

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._places = Places(setup.state.absolute())
        self._places.make()
        self._drop = capability.drops_uid()
        self._cgroups = cgroup.find()
        self._tried = threading.Lock()
        self._machine: view.Machine | None = None
        # Only a short cut for who follows a log: what it says is looked at again.
        self._read_to: dict[InstanceRef, log.Place] = {}
        self.leaving: Callable[[InstanceRef], None] = lambda _ref: None

    def capabilities(self) -> Capabilities:
        limits = self._cgroups.controllers if self._cgroups is not None else ()
        missing = [f"{name} by cgroup" for name in cgroup.CONTROLLERS if name not in limits]
        missing += [] if self._drop else ["an own uid for each environment"]
        complaint = ""
        try:
            self._require()
        except HeadwayError as error:
            complaint = error.message
            missing.append(complaint)
        return Capabilities("process", not complaint, self._drop, tuple(limits), tuple(missing))

    def ensure(self, spec: InstanceSpec) -> Status:
        deadline = time.monotonic() + START_SECONDS
        self._places.folder(spec.ref)
        recipe: Recipe | None = None
        while True:
            said = control.ask(str(self._places.control(spec.ref)), op="status")
            if said is not None and said["state"] not in ("stopping", "stopped"):
                return self._told(spec.ref, said)
            recipe = recipe or self._recipe(spec, once=None)
            held = self._hold(spec.ref)
            if held is not None:
                try:
                    self._start(spec, recipe, held)
                finally:
                    os.close(held)
                return self.status(spec.ref)
            if time.monotonic() > deadline:
                raise HeadwayError("runtime.unavailable", f"the keeper of {spec.ref} does not answer")
            time.sleep(LOOK)

    def stop(self, ref: InstanceRef, grace: float) -> Status:
        control.ask(str(self._places.control(ref)), op="stop", grace=grace)
        if not self._over(ref, grace + EXTRA_SECONDS):
            if not identity.kill(self._record(ref), EXTRA_SECONDS):
                raise HeadwayError("runtime.unavailable", f"the keeper of {ref} outlived SIGKILL")
            self._over(ref, EXTRA_SECONDS)
        held = self._hold(ref) if self._places.folder(ref).is_dir() else None
        if held is not None:
            try:
                self._sweep(ref)
            finally:
                os.close(held)
        return self.status(ref)

    def remove(self, ref: InstanceRef) -> None:
        folder = self._places.folder(ref)
        if not folder.is_dir():
            return
        self.stop(ref, float(self._read(folder / "spec.json").get("stop_grace", 0.0)))
        held = self._hold(ref)
        if held is None:
            raise HeadwayError("runtime.unavailable", f"{ref} was started again while it was removed")
        try:
            self._sweep(ref)
            self.leaving(ref)
            self._read_to.pop(ref, None)
            remove_tree(folder)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()
        finally:
            os.close(held)

    def status(self, ref: InstanceRef) -> Status:
        said = control.ask(str(self._places.control(ref)), op="status")
        if said is not None:
            return self._told(ref, said)
        folder = self._places.folder(ref)
        if not (folder / "spec.json").exists():
            return Status(ref, "absent")
        known = self._record(ref)
        if not self._over(ref, 0.0):
            return self._told(ref, {"state": "starting", **known})  # it lives, and is busy
        told = self._told(ref, known | {"state": "stopped", "pid": None})
        if known.get("state") == "stopped":
            return told
        why = "its keeper is gone" if known.get("boot_id") == identity.boot_id() else "the host was started anew"
        return replace(told, reason=why)

    def list(self, env_id: str | None = None) -> list[Status]:
        return [one for ref in self._places.known(env_id) if (one := self.status(ref)).state != "absent"]

    def environments(self) -> set[str]:
        return self._places.environments()

    def logs(self, ref: InstanceRef, since: int = 0, limit: int = 1000) -> Iterator[LogLine]:
        known = self._read_to.get(ref)
        for at, ((number, ts, stream, text), place) in enumerate(log.read_on(self._places.folder(ref), since, known)):
            if at >= limit:
                return
            self._read_to[ref] = place
            yield LogLine(number, ts, cast("Any", stream), text)

    def run_once(
        self, spec: InstanceSpec, timeout: float, *, canceled: Callable[[], bool] = lambda: False
    ) -> tuple[int, Lines]:
        self._places.folder(spec.ref)
        recipe = self._recipe(spec, once=timeout)
        held = self._hold(spec.ref)
        if held is not None:
            try:
                if self._record(spec.ref).get("state") != "stopped":
                    self._start(spec, recipe, held)
            finally:
                os.close(held)
        while not self._over(spec.ref, 0.1):
            if canceled():
                self.stop(spec.ref, 0.0)
                self.remove(spec.ref)
                raise HeadwayError("job.canceled", "The command was canceled while it ran.")
        record = self._record(spec.ref)
        if record.get("state") != "stopped":
            raise HeadwayError("runtime.unavailable", f"the keeper of {spec.ref} was killed while the command ran")
        return int(record.get("exit_code") or 0), [*deque(self.logs(spec.ref, limit=sys.maxsize), maxlen=MOST_LINES)]

    def connections(self, ref: InstanceRef) -> int:
        said = control.ask(str(self._places.control(ref)), op="status")
        return int(said["connections"]) if said is not None else 0

    def _start(self, spec: InstanceSpec, recipe: Recipe, held: int) -> None:
        """With the lock in hand: nothing of the instance is running, or it is ended first."""
        self._sweep(spec.ref)
        folder = self._places.folder(spec.ref)
        (folder / "state.json").unlink(missing_ok=True)
        kept = {"command": spec.command, "stop_grace": spec.stop_grace, "once": recipe.once is not None}
        (folder / "spec.json").write_text(json.dumps(kept))
        with os.fdopen(os.memfd_create("recipe"), "w+b") as told, (folder / "keeper.log").open("ab") as complaints:
            told.write(recipe.dump())
            told.seek(0)
            launcher = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", BOOT, *ROOTS, str(folder)],
                stdin=told,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env={},
                cwd="/",
                pass_fds=(held,),
                start_new_session=True,
            )
        with launcher:
            assert launcher.stdout is not None  # noqa: S101
            said = launcher.stdout.readline().decode(errors="replace").strip()
        if said != "ready":
            why = said or "see keeper.log"
            raise HeadwayError("runtime.unavailable", f"the keeper of {spec.ref} did not start: {why}")

    def _recipe(self, spec: InstanceSpec, once: float | None) -> Recipe:
        machine, setup = self._require(), self._setup
        uid = uid_of(self._places.state, spec.ref.env_id) if self._drop else None
        walls = view.walls(spec, machine, uid)
        for volume in spec.volumes:
            self._lend(volume.source, uid)
        port = view.port_of(spec) if once is None else None
        opener = None
        if spec.sealed is not None:
            if setup.key_file is None:
                raise HeadwayError("runtime.unavailable", "this host has no key for sealed configurations")
            opener = Opener(str(spec.sealed.absolute()), str(setup.key_file.absolute()), setup.opener, tuple(sys.path))
        groups = self._cgroups
        return Recipe(
            folder=str(self._places.folder(spec.ref)),
            control=str(self._places.control(spec.ref)),
            words=walls.words,
            options=walls.options,
            data=walls.data,
            command=walls.command,
            tasks=walls.tasks,
            outside=walls.outside,
            mark=self._places.mark(spec.ref),
            bounds=spec.bounds,
            stop_grace=spec.stop_grace,
            port=port,
            socket=str(self._places.socket(spec.ref)) if port is not None else None,
            socket_mode=setup.socket_mode,
            socket_gid=setup.socket_gid,
            cgroup=(groups.version, {key: str(base) for key, base in groups.bases.items()}, self._group(spec.ref))
            if groups is not None
            else None,
            opener=opener,
            once=once,
            given=str(spec.given.absolute()) if spec.given is not None and once is not None else None,
            pace=setup.pace,
        )

    def _require(self) -> view.Machine:
        with self._tried:
            if self._machine is None:
                state, setup = self._places.state, self._setup
                found, shut, complaint = capability.usable(setup.bwrap, state, drop=self._drop)
                complaint = complaint or network_complaint()
                if found is None or complaint:
                    raise HeadwayError("runtime.isolation_missing", f"This host cannot isolate apps: {complaint}")
                limits = self._cgroups.controllers if self._cgroups is not None else ()
                self._machine = view.Machine(
                    bwrap=found,
                    shut_namespaces=shut,
                    certificates=certificates.bundle(state, setup.ca_files),
                    toolchains=tuple(setup.toolchains),
                    private_ok=setup.private_ok,
                    host_sockets=tuple(setup.host_sockets),
                    tasks_counted="pids" in limits,
                )
            return self._machine

    def _lend(self, source: Path, uid: int | None) -> None:
        try:
            view.make_volume(source)
            if uid is not None and source.stat().st_uid != uid:
                source.chmod(0o700)
                hand_over(source, uid, uid)
        except OSError as error:
            said = f"the volume {source} cannot be lent: {error.strerror}"
            raise HeadwayError("runtime.unavailable", said) from error

    def _hold(self, ref: InstanceRef) -> int | None:
        """The instance's lock, or None while its keeper holds it. Makes the folder."""
        folder = self._places.folder(ref)
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                held = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(held)
                return None
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(held), os.stat(folder / "lock")):
                    return held
            os.close(held)  # it was removed meanwhile: this lock guards nothing

    def _over(self, ref: InstanceRef, seconds: float) -> bool:
        """Wait until no keeper holds the lock."""
        path = self._places.folder(ref) / "lock"
        deadline, pause = time.monotonic() + seconds, LOOK
        while True:
            try:
                held = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                return True
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                pass
            finally:
                os.close(held)
            left = deadline - time.monotonic()
            if left < 0:
                return False
            # An app may be given an hour to stop, and many may stop at once.
            time.sleep(min(pause, max(left, LOOK)))
            pause = min(1.5 * pause, SELDOM)

    def _sweep(self, ref: InstanceRef) -> None:
        """End and remove what a killed keeper left. Its app dies with it; this is for what was about to start."""
        # The lock is free, so what a killed keeper forked has been executed; its environment shows a moment later.
        rounds = 1 if self._record(ref).get("state") in (None, "stopped") else 2
        for again in range(rounds):
            time.sleep(again * SHOWS)
            if not identity.kill_marked(MARK, self._places.mark(ref), EXTRA_SECONDS):
                raise HeadwayError("runtime.unavailable", f"processes of {ref} outlived SIGKILL")
        if self._cgroups is not None:
            group = self._cgroups.named(self._group(ref))
            if any(folder.exists() for folder in group.folders.values()):
                group.kill()
                group.remove()
        for path in (self._places.socket(ref), self._places.control(ref)):
            path.unlink(missing_ok=True)

    def _group(self, ref: InstanceRef) -> str:
        return f"app-{self._places.mark(ref)}"

    def _told(self, ref: InstanceRef, said: dict[str, Any]) -> Status:
        running = said.get("state") not in ("stopped", "stopping", None)
        path = self._places.socket(ref)
        return Status(
            ref,
            cast("Any", said.get("state", "stopped")),
            endpoint=f"unix:{path}" if running and path.exists() else None,
            pid=said.get("pid"),
            restarts=int(said.get("restarts", 0)),
            exit_code=said.get("exit_code"),
            reason=str(said.get("reason", "")),
            since=float(said.get("since", 0.0)),
        )

    def _record(self, ref: InstanceRef) -> dict[str, Any]:
        return self._read(self._places.folder(ref) / "state.json")

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError):
            return {}
        return found


def network_complaint() -> str:
    """Why a keeper could not make a network of its own here; empty where it can. Starts a process for it."""
    words = [sys.executable, "-I", "-S", "-c", TRY, *ROOTS]
    try:
        done = subprocess.run(words, env={}, cwd="/", capture_output=True, timeout=START_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return "" if done.returncode == 0 else f"no network namespace: {lines[-1] if lines else done.returncode}"
