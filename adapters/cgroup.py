"""Limits that the kernel keeps: a cgroup per run or instance, of version 2 where that has controllers, else 1.

Cgroups hang below the one this process is in wherever possible, so that a limit set from outside holds for builds.
Processes are moved in by their parent while they still wait; nothing has to run inside. A worker with a uid of its own
is lent a place by root (`lend`), and told of it by `VARIABLE`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

CONTROLLERS = ("memory", "pids", "cpu")
FOLDER = "headway"
PERIOD = 100_000  # microseconds; the kernel's default
WEIGHT, SHARES = 100, 1024  # the kernel's defaults
LOW = 0.2  # of them: serving goes before building
REMOVE_SECONDS = 3.0
# JSON: `[version, {controller: folder}]`.
VARIABLE = "HEADWAY_CGROUPS"
# Version 1 lets only the machine's root move what runs under another uid: then a process moves itself, before that.
ENTER = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs"; shift; done; shift; exec "$@"'


class Quantities(Protocol):
    """`memory` in bytes, `pids` in tasks, `cpu` in cores."""

    @property
    def memory(self) -> int: ...

    @property
    def pids(self) -> int: ...

    @property
    def cpu(self) -> float: ...


@dataclass(frozen=True)
class Events:
    """What the kernel counted. `peak` in bytes, None where it is not measured."""

    out_of_memory: bool = False
    out_of_pids: bool = False
    peak: int | None = None


class Cgroup:
    """One run's cgroup: `folders` by controller (version 2: the same folder for each)."""

    def __init__(self, version: int, folders: dict[str, Path]) -> None:
        self.version = version
        self.folders = folders

    def limit(self, limits: Quantities, share: float = LOW, *, whole: bool = True) -> None:
        """`share` of the default weight. `whole` (version 2): who runs out of memory is killed with all beside it."""
        quota = str(max(1000, int(limits.cpu * PERIOD)))
        if self.version == 2:
            values = {
                "memory.max": str(limits.memory),
                "memory.swap.max": "0",
                "memory.oom.group": "1" if whole else "0",
                "pids.max": str(limits.pids),
                "cpu.max": f"{quota} {PERIOD}",
                "cpu.weight": str(round(WEIGHT * share)),
                "io.weight": str(round(WEIGHT * share)),
            }
        else:
            values = {
                "memory.limit_in_bytes": str(limits.memory),
                "memory.memsw.limit_in_bytes": str(limits.memory),
                "pids.max": str(limits.pids),
                "cpu.cfs_period_us": str(PERIOD),
                "cpu.cfs_quota_us": quota,
                "cpu.shares": str(round(SHARES * share)),
            }
        for name, value in values.items():
            folder = self.folders.get(name.partition(".")[0]) or (self._any if self.version == 2 else None)
            if folder is not None and (folder / name).exists():
                with contextlib.suppress(PermissionError):  # a controller's optional files differ between kernels
                    (folder / name).write_text(value)

    @property
    def _any(self) -> Path:
        return next(iter(self.folders.values()))

    @property
    def _distinct(self) -> list[Path]:
        return list(dict.fromkeys(self.folders.values()))

    @property
    def entering(self) -> list[str]:
        """Words in front of a command that is to be in it from the start; none where `add` can move it later."""
        if self.version == 2 or _is_root_of_machine():
            return []
        return ["sh", "-c", ENTER, "enter", *(str(folder) for folder in self._distinct), "--"]

    def add(self, pid: int) -> None:
        """Move a process in, unless `entering` has done so. OSError if it has gone."""
        for folder in self._distinct if not self.entering else ():
            (folder / "cgroup.procs").write_text(str(pid))

    def events(self) -> Events:
        pids = _counters(self.folders.get("pids"), "pids.events").get("max", 0) > 0
        memory = self.folders.get("memory")
        if memory is None:
            return Events(out_of_pids=pids)
        source, peak = (
            ("memory.events", "memory.peak")
            if self.version == 2
            else (
                "memory.oom_control",
                "memory.max_usage_in_bytes",
            )
        )
        killed = _counters(memory, source).get("oom_kill", 0) > 0
        text = _read(memory / peak)
        return Events(killed, pids, int(text) if text.isdigit() else None)

    def processes(self) -> list[int]:
        """Host pids of what is in it."""
        return [int(line) for line in _read(self._any / "cgroup.procs").split()]

    def kill(self) -> None:
        """End everything in it, again until nothing is left."""
        with contextlib.suppress(OSError):
            (self._any / "cgroup.kill").write_text("1")
        deadline = time.monotonic() + REMOVE_SECONDS
        while (pids := self.processes()) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)

    def remove(self) -> bool:
        """Whether it was empty and is gone; tried for a while, since exits are not instant."""
        deadline = time.monotonic() + REMOVE_SECONDS
        left = self._distinct
        while left:
            try:
                left[0].rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.002)
                continue
            left.pop(0)
        return True


@dataclass(frozen=True)
class Cgroups:
    """Where cgroups may be made: `bases` by controller."""

    version: int
    bases: dict[str, Path]

    @property
    def controllers(self) -> tuple[str, ...]:
        return tuple(self.bases)

    def named(self, name: str) -> Cgroup:
        """The cgroup of that name, there or not."""
        return Cgroup(self.version, {key: base / name for key, base in self.bases.items()})

    def make(self, name: str, limits: Quantities, share: float = LOW, *, whole: bool = True) -> Cgroup:
        """A new cgroup of that name with these limits; one left behind under the name is emptied and removed."""
        made = self.named(name)
        if any(folder.exists() for folder in made.folders.values()):
            made.kill()
            made.remove()
        for folder in made._distinct:
            folder.mkdir(exist_ok=True)
        made.limit(limits, share, whole=whole)
        return made


def find() -> Cgroups | None:
    """What was lent; else version 2's hierarchy if it offers memory and pids, else what version 1 offers, else None."""
    if lent := os.environ.get(VARIABLE):
        version, folders = json.loads(lent)
        return Cgroups(version, {name: Path(folder) for name, folder in folders.items()})
    mounts = _mounts()
    unified = next((m for m in mounts if m.kind == "cgroup2"), None)
    if unified is not None and (base := _unified(unified)) is not None:
        return Cgroups(2, {name: base for name in CONTROLLERS if name in _read(base / "cgroup.controllers").split()})
    bases = {}
    for name in CONTROLLERS:
        mount = next((m for m in mounts if m.kind == "cgroup" and name in m.options), None)
        if mount is not None and (base := _make(mount.own(_own_path(name)) / FOLDER)) is not None:
            bases[name] = base
    return Cgroups(1, bases) if "pids" in bases or "memory" in bases else None


def lend(name: str, uid: int) -> dict[str, str]:
    """As root: a place of that name where `uid` may make cgroups, as a variable for its environment."""
    found = find()
    if found is None:
        return {}
    bases = {controller: base / name for controller, base in found.bases.items()}
    for base in dict.fromkeys(bases.values()):
        base.mkdir(exist_ok=True)
        if found.version == 2:
            # A process that moves others must be below the place itself; and where children are, no process may be.
            own = base / "self"
            own.mkdir(exist_ok=True)
            (own / "cgroup.procs").write_text(str(os.getpid()))
            _delegate(base)
            for folder, files in ((base, ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")), (own, ())):
                for file in (*files, "cgroup.procs"):
                    os.chown(folder / file, uid, uid)
        else:
            # Who may make cgroups here cannot make the place again: systemd removes those in which nobody is.
            with contextlib.suppress(OSError):
                (base / "cgroup.procs").write_text(str(os.getpid()))
        os.chown(base, uid, uid)
    return {VARIABLE: json.dumps([found.version, {key: str(base) for key, base in bases.items()}])}


def take_back(name: str) -> None:
    """As root, when nobody is in it any more: what `lend` made, and what is left below it."""
    found = find()
    for base in dict.fromkeys(found.bases.values()) if found is not None else ():
        place = base / name
        for folder in (*(one for one in place.glob("*") if one.is_dir()), place):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _is_root_of_machine() -> bool:
    """Whether uid 0 of this process is that of the outermost user namespace, as far as it can be seen from here."""
    return os.geteuid() == 0 and _read(Path("/proc/self/uid_map")).split()[:2] == ["0", "0"]


@dataclass(frozen=True)
class _Mount:
    kind: str
    root: str
    point: Path
    options: tuple[str, ...]

    def own(self, path: str) -> Path:
        """The folder of cgroup `path` under this mount, whose top is `root`."""
        inner = path.removeprefix(self.root) if self.root != "/" else path
        folder = self.point / inner.strip("/")
        return folder if ".." not in Path(inner).parts and folder.is_dir() else self.point


def _mounts() -> list[_Mount]:
    found = []
    for line in _read(Path("/proc/self/mountinfo")).splitlines():
        left, _, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        if tail and tail[0] in ("cgroup", "cgroup2"):
            found.append(_Mount(tail[0], fields[3], Path(fields[4]), tuple(tail[2].split(","))))
    return found


def _own_path(controller: str) -> str:
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(",") or (not controller and not names):
            return path
    return "/"


def _unified(mount: _Mount) -> Path | None:
    own = mount.own(_own_path(""))
    # A cgroup that holds processes cannot have children with controllers (cgroups(7)), so the top comes next; and in
    # a container, whose top is an ordinary cgroup, its processes have to step aside.
    for parent in dict.fromkeys((own, mount.point)):
        if not {"memory", "pids"} <= set(_read(parent / "cgroup.controllers").split()):
            continue
        if _delegate(parent) or (parent == mount.point == own and _step_aside(parent) and _delegate(parent)):
            base = _make(parent / FOLDER)
            if base is not None and _delegate(base):
                return base
    return None


def _delegate(folder: Path) -> bool:
    wanted = [name for name in CONTROLLERS if name in _read(folder / "cgroup.controllers").split()]
    try:
        (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in wanted))
    except OSError:
        return False
    return True


def _step_aside(folder: Path) -> bool:
    aside = _make(folder / f"{FOLDER}-rest")
    if aside is None:
        return False
    for pid in _read(folder / "cgroup.procs").split():
        with contextlib.suppress(OSError):
            (aside / "cgroup.procs").write_text(pid)
    return not _read(folder / "cgroup.procs").split()


def _make(folder: Path) -> Path | None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _counters(folder: Path | None, name: str) -> dict[str, int]:
    if folder is None:
        return {}
    pairs = (line.split() for line in _read(folder / name).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
