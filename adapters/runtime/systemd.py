"""Instances as units of systemd: one writes them, `systemctl` drives them, PID 1 supervises.

Per instance up to two units in `/run`: the app with a network of its own (`PrivateNetwork`), and its door, which joins
that network (`JoinsNamespaceOf`) and leads to it from the endpoint. A reboot empties `/run`: the next `ensure` writes
them again. The app's view of the host is an empty root onto which its tree and the toolchain are bound; processes of
others are hidden by uid, not by a pid namespace.

Nothing goes out of that network, so `egress` has to be empty, but for `unix:`. Sealed configurations are opened here
into a file below `/run`, which PID 1 reads at each start. Their values are taken out of what the app prints before the
journal has it (`teller.py`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from adapters.redaction import Redactor
from adapters.runtime import door
from adapters.runtime.driver import MOST_LINES, Capabilities, InstanceRef, InstanceSpec, Lines, LogLine, Status
from adapters.runtime.engine import established
from adapters.runtime.frame import lay
from adapters.runtime.process.opening import CannotOpen, open_configuration
from adapters.runtime.process.places import Places
from adapters.runtime.process.recipe import Opener
from adapters.runtime.process.uids import uid_of
from adapters.runtime.process.view import allowed_sockets, inside, make_volume, port_of
from adapters.runtime.units import ENDED, SHORT, STDERR, Facts, app_unit, door_unit, environment_file
from headway.errors import HeadwayError

SHOWN = "ActiveState,SubState,Result,MainPID,NRestarts,ExecMainCode,ExecMainStatus,StateChangeTimestampMonotonic"
CRASHES = 5
KILLED_BY_SIGNAL, DUMPED = "2", "3"  # CLD_KILLED and CLD_DUMPED of waitid(2)
LOOK = 0.05
SECONDS = 60.0
EXTRA_SECONDS = 30.0


@dataclass(frozen=True)
class Setup:
    """`units` is a folder that PID 1 reads, `secrets` one on a tmpfs. The rest is as for the embedded driver."""

    state: Path
    units: Path = Path("/run/systemd/system")
    secrets: Path = Path("/run/headway")
    key_file: Path | None = None
    toolchains: Sequence[Path] = ()
    host_sockets: Sequence[Path] = ()
    socket_mode: int = 0o666
    opener: str = "adapters.config.sealed:open_sealed"
    systemctl: str = "systemctl"
    journalctl: str = "journalctl"


class SystemdDriver:
    """`RuntimeDriver` of PID 1. Needs root."""

    counts_lines = False

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._places = Places(setup.state.absolute())
        self._places.make()
        self.leaving: Callable[[InstanceRef], None] = lambda _ref: None

    def capabilities(self) -> Capabilities:
        missing = ("egress by name", "a pid namespace for each instance")
        return Capabilities("systemd", True, True, ("memory", "pids", "cpu"), missing)

    def ensure(self, spec: InstanceSpec) -> Status:
        if self.status(spec.ref).state in ("absent", "stopped"):
            name = self._name(spec.ref)
            doors = [f"{name}-door.service"] if port_of(spec) is not None else []
            with self._alone():
                self._write(spec, once=None)
                self._ctl("daemon-reload")
                self._ctl("start", "--no-block", f"{name}.service", *doors)
            if doors:
                door.until_open(self._endpoint(spec.ref))
        return self.status(spec.ref)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One writer of units at a time, in whatever process: a worker may begin while its predecessor ends."""
        lock = os.open(self._places.state / "units.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def stop(self, ref: InstanceRef, grace: float) -> Status:
        name = self._name(ref)
        if not self._unit(ref).exists():
            return Status(ref, "absent")
        by = time.monotonic() + grace
        self._ctl("stop", "--no-block", f"{name}-door.service", fine=(5,))
        # The unit's own time for stopping is the spec's; this call's may be another.
        if self.status(ref).state != "stopped":
            self._ctl("stop", "--no-block", f"{name}.service")
            if not self._until_stopped(ref, grace):
                self._ctl("kill", "--signal=SIGKILL", f"{name}.service", fine=(1, 5))
                if not self._until_stopped(ref, EXTRA_SECONDS):
                    raise HeadwayError("runtime.unavailable", f"{name}.service outlived SIGKILL")
        # What the app had sent already still goes out, as long as the grace lasts.
        while self._ctl("is-active", f"{name}-door.service", fine=(3, 4)).strip() == "deactivating":
            if time.monotonic() > by:
                self._ctl("kill", "--signal=SIGKILL", f"{name}-door.service", fine=(1, 5))
                break
            time.sleep(LOOK)
        return self.status(ref)

    def remove(self, ref: InstanceRef) -> None:
        if not self._unit(ref).exists():
            return
        facts = self._facts(ref)
        self.stop(ref, float(facts.get("stop_grace", 0.0)))
        self.leaving(ref)
        name = self._name(ref)
        for suffix in ("-door.service", ".service"):
            (self._setup.units / f"{name}{suffix}").unlink(missing_ok=True)
        for path in (self._setup.secrets / name, self._setup.secrets / f"{name}.values"):
            path.unlink(missing_ok=True)
        for folder in (self._endpoint(ref).parent, self._places.folder(ref)):
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._places.folder(ref).parent.rmdir()
        self._ctl("daemon-reload")
        self._ctl("reset-failed", f"{name}.service", f"{name}-door.service", fine=(1,))

    def status(self, ref: InstanceRef) -> Status:
        if not self._unit(ref).exists():
            return Status(ref, "absent")
        said = self._ctl("show", f"--property={SHOWN}", f"{self._name(ref)}.service")
        shown = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        endpoint = f"unix:{self._endpoint(ref)}" if self._facts(ref).get("port") is not None else None
        found = read_status(ref, shown, endpoint)
        if found.state in ("backoff", "crash_loop") and found.exit_code is None:
            # While it waits to begin again, systemd knows nothing of its end any more.
            code = self._ended(ref)
            return replace(found, exit_code=code, reason=found.reason or (f"exit code {code}" if code else ""))
        if found.state != "stopped" or found.exit_code is not None:
            return found
        # A unit that ended well is forgotten by systemd, and how and when it ended with it.
        noted = self._places.folder(ref) / ENDED
        since = found.since or (noted.stat().st_mtime if noted.exists() else 0.0)
        return replace(found, exit_code=self._ended(ref), since=since)

    def list(self, env_id: str | None = None) -> list[Status]:
        return [one for ref in self._places.known(env_id) if (one := self.status(ref)).state != "absent"]

    def environments(self) -> set[str]:
        return self._places.environments()

    def logs(self, ref: InstanceRef, since: int = 0, limit: int = 1000) -> Iterator[LogLine]:
        """Numbers are the journal's time stamps, in nanoseconds."""
        command = [self._setup.journalctl, "--no-pager", "--output=json", *self._its_lines(ref)]
        command += [f"--since=@{since // 10**9}"] if since else []
        try:
            done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HeadwayError("runtime.unavailable", f"the journal does not answer: {error}") from error
        redactor = Redactor(self._opened(ref))
        last = given = 0
        for line in done.stdout.splitlines():
            entry = json.loads(line)
            number = max(int(entry["__REALTIME_TIMESTAMP"]) * 1000, last + 1)
            last = number
            if number > since and given < limit:
                given += 1
                yield _line(number, entry, redactor)

    def _its_lines(self, ref: InstanceRef) -> tuple[str, ...]:
        """By its unit, and by its own name under its uid: of a process that has ended before the journal looked at it
        nobody knows the unit any more.
        """
        unit, uid = f"{self._name(ref)}.service", uid_of(self._places.state, ref.env_id)
        named = (f"SYSLOG_IDENTIFIER={self._name(ref)}", f"_UID={uid}")
        return (f"_SYSTEMD_UNIT={unit}", "+", "_PID=1", f"UNIT={unit}", "+", *named)

    def run_once(
        self, spec: InstanceSpec, timeout: float, *, canceled: Callable[[], bool] = lambda: False
    ) -> tuple[int, Lines]:
        name = self._name(spec.ref)
        with self._alone():
            if not self._unit(spec.ref).exists():
                self._write(spec, once=timeout)
                self._ctl("daemon-reload")
                self._ctl("start", "--no-block", f"{name}.service")
        while not self._until_stopped(spec.ref, LOOK):
            if canceled():
                self.stop(spec.ref, 0.0)
                self.remove(spec.ref)
                raise HeadwayError("job.canceled", "The command was canceled while it ran.")
        # What it said last may be on its way into the journal still.
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run([self._setup.journalctl, "--sync"], capture_output=True, timeout=SECONDS, check=False)
        return self.status(spec.ref).exit_code or 0, [*deque(self.logs(spec.ref, limit=1 << 62), maxlen=MOST_LINES)]

    def connections(self, ref: InstanceRef) -> int:
        status, port = self.status(ref), self._facts(ref).get("port")
        return established(status.pid, int(port)) if status.pid and port else 0

    def _write(self, spec: InstanceSpec, once: float | None) -> None:
        """The unit of the app last: it says that the others are there."""
        name, setup = self._name(spec.ref), self._setup
        root = Path(os.path.realpath(spec.root))
        if not root.is_dir():
            raise HeadwayError("runtime.spec_invalid", f"{spec.root} is no folder")
        if any(not text.startswith("unix:") for text in spec.egress):
            raise HeadwayError("runtime.egress_refused", "Units of this host have no way out.", param="egress")
        uid = uid_of(self._places.state, spec.ref.env_id)
        port = port_of(spec) if once is None else None
        folder = self._places.folder(spec.ref)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        secrets, hidden = self._open(spec) if spec.sealed is not None else (None, ())
        for note in (ENDED, SHORT):
            (folder / note).unlink(missing_ok=True)
        volumes = tuple((one.source.absolute(), inside(one.target, "a volume")) for one in spec.volumes)
        facts = Facts(
            name=name,
            uid=uid,
            tree=tuple(lay(root, [target for _, target in volumes], folder / "tree")),
            cwd=inside(spec.cwd, "cwd") if spec.cwd else "/workspace",
            notes=folder,
            volumes=volumes,
            sockets=tuple(allowed_sockets(spec, setup.host_sockets)),
            toolchains=tuple(setup.toolchains),
            secrets=secrets,
            port=port,
            once=once,
            hidden=hidden,
        )
        for source, _ in facts.volumes:
            make_volume(source)
            os.chown(source, uid, uid)
        texts = {f"{name}.service": app_unit(spec, facts)}
        if port is not None:
            at = door.folder_of(self._places.state, self._endpoint(spec.ref).parent.name, uid)
            command = door.command(port, setup.socket_mode)
            texts = {f"{name}-door.service": door_unit(name, uid, command, at, spec.stop_grace), **texts}
        (folder / "spec.json").write_text(json.dumps({"stop_grace": spec.stop_grace, "port": port}))
        setup.units.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            fresh = setup.units / f".{file}.new"
            fresh.write_text(text)
            fresh.replace(setup.units / file)

    def _open(self, spec: InstanceSpec) -> tuple[Path, tuple[str, ...]]:
        """A file for PID 1, and the names in it that are hidden."""
        if self._setup.key_file is None:
            raise HeadwayError("runtime.unavailable", "this host has no key for sealed configurations")
        opener = Opener(str(spec.sealed), str(self._setup.key_file), self._setup.opener, tuple(sys.path))
        try:
            opened = open_configuration(opener)
        except CannotOpen as error:
            raise HeadwayError("runtime.unavailable", str(error)) from None
        self._setup.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._setup.secrets / self._name(spec.ref)
        for place, text in (
            (path, environment_file(opened.values)),
            (path.with_suffix(".values"), json.dumps([*opened.hidden.values()])),
        ):
            place.unlink(missing_ok=True)
            with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
                file.write(text)
        return path, tuple(sorted(opened.hidden))

    def _opened(self, ref: InstanceRef) -> tuple[str, ...]:
        """Of its configuration, the values that are hidden."""
        try:
            return tuple(json.loads((self._setup.secrets / f"{self._name(ref)}.values").read_text()))
        except (OSError, ValueError):
            return ()

    def _endpoint(self, ref: InstanceRef) -> Path:
        return self._places.state / "d" / self._places.socket(ref).name / door.SOCKET

    def _ended(self, ref: InstanceRef) -> int | None:
        """What the unit itself wrote down at its end: how, and with what code or by what signal."""
        try:
            how, what = (self._places.folder(ref) / ENDED).read_text().split()
            return int(what) if how == "exited" else 128 + signal.Signals[f"SIG{what}"]
        except (OSError, ValueError, KeyError):
            return None

    def _until_stopped(self, ref: InstanceRef, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.status(ref).state not in ("stopped", "absent"):
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK)
        return True

    def _ctl(self, *words: str, fine: tuple[int, ...] = ()) -> str:
        try:
            done = subprocess.run(
                [self._setup.systemctl, "--no-ask-password", *words],
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HeadwayError("runtime.unavailable", f"systemd does not answer: {error}") from error
        if done.returncode and done.returncode not in fine:
            raise HeadwayError("runtime.unavailable", f"systemctl {words[0]} failed: {done.stderr.strip()[-300:]}")
        return done.stdout

    def _name(self, ref: InstanceRef) -> str:
        return f"headway-{self._places.mark(ref)}"

    def _unit(self, ref: InstanceRef) -> Path:
        return self._setup.units / f"{self._name(ref)}.service"

    def _facts(self, ref: InstanceRef) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self._places.folder(ref) / "spec.json").read_text())
        except (OSError, ValueError):
            return {}
        return found


def read_status(ref: InstanceRef, shown: dict[str, str], endpoint: str | None) -> Status:
    """What `systemctl show` says of the app's unit, in our words."""
    active, sub, restarts = shown.get("ActiveState", ""), shown.get("SubState", ""), int(shown.get("NRestarts") or 0)
    if sub == "auto-restart" or (sub == "start-pre" and restarts):
        state = "crash_loop" if restarts >= CRASHES else "backoff"
    else:
        words = {"active": "running", "activating": "starting", "deactivating": "stopping", "reloading": "running"}
        state = words.get(active, "stopped")
    code, status = shown.get("ExecMainCode", "0"), int(shown.get("ExecMainStatus") or 0)
    ended = code != "0" and (state != "running" or restarts > 0)
    result = shown.get("Result", "success")
    reasons = {"oom-kill": "out of memory", "timeout": "it outlived its grace and was killed", "success": ""}
    since = float(shown.get("StateChangeTimestampMonotonic") or 0) / 1e6
    return Status(
        ref,
        cast("Any", state),
        endpoint=endpoint if state not in ("stopped", "stopping") else None,
        pid=int(shown.get("MainPID") or 0) or None,
        restarts=restarts,
        exit_code=(128 + status if code in (KILLED_BY_SIGNAL, DUMPED) else status) if ended else None,
        reason=reasons.get(result, result if result != "exit-code" else f"exit code {status}"),
        since=time.time() - time.monotonic() + since if since else 0.0,
    )


def _line(number: int, entry: dict[str, Any], redactor: Redactor) -> LogLine:
    said = entry.get("MESSAGE")
    # The journal gives what is not text as a list of bytes.
    data = bytes(said) if isinstance(said, list) else str(said or "").encode()
    seconds, rest = divmod(number // 1_000_000, 1000)
    ts = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:03d}Z"
    ours = entry.get("_PID") == "1" or entry.get("SYSLOG_IDENTIFIER") == "systemd"
    stream = "system" if ours else "stderr" if entry.get("PRIORITY") == STDERR else "stdout"
    return LogLine(number, ts, cast("Any", stream), redactor.hide(data).decode("utf-8", "backslashreplace"))
