"""Limits that this process keeps by looking: disk always; memory and processes where no cgroup does.

Disk is watched and not mounted: a loop device or a quota needs rights that containers mostly lack, and a mount left
behind by a killed process is worse than a few bytes too many. A watch works everywhere alike. It is cheap, because
the tree is only walked when the file system has lost space, or seldom; and RLIMIT_FSIZE stops any single file at once.
Files that a run has deleted and still holds take space without being in any tree: its processes are asked for them.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path

from adapters.cgroup import Quantities
from adapters.sandbox.command import Limit
from adapters.sandbox.removal import Usage, measure

INTERVAL = 0.3
WALK_SHARE = 0.05  # at most this part of the time is spent walking unless space is vanishing
MOST_FILES = 2_000_000
FLOOR = 256 << 20  # bytes that stay free on the file system whatever the limit says
NOTICEABLE = 16 << 20
MOST_SECONDS = 1.0  # of this thread's own time, in one look at what processes hold


class DiskWatch:
    """`paths` is everything the run can write; `before` of it held something already."""

    def __init__(self, paths: list[Path], limit: int, *, before: list[Path]) -> None:
        self._paths, self._limit = paths, limit
        held = measure(before, MOST_FILES) if before else Usage(0, 0, 0, blind=False)
        self._before = held
        self._free, self._nodes = self._room()
        self._known = 0
        self._free_then = self._free
        self._next_walk = 0.0
        self._first: int | None = None

    def follow(self, first: int) -> None:
        """`first` is the run's first process: from now on what it and its descendants hold open counts too."""
        self._first = first

    def full(self, *, thorough: bool = False) -> bool:
        """Whether the run holds more than its limit; `thorough` looks for certain."""
        free, nodes = self._room()
        lost = self._free - free
        scarce = free < FLOOR and lost > NOTICEABLE
        vanishing = self._known + max(0, self._free_then - free) >= self._limit or self._nodes - nodes > MOST_FILES
        if not (thorough or scarce or vanishing or time.monotonic() >= self._next_walk):
            return False
        started = time.monotonic()
        usage = measure(self._paths, MOST_FILES)
        held = 0 if thorough else self._nameless()  # at the end nobody is left who could hold any
        took = time.monotonic() - started
        self._next_walk = time.monotonic() + max(1.0, took / WALK_SHARE)
        written = usage.blocks - self._before.blocks
        if usage.blind or held is None:
            written = max(written, lost)  # what a build hides from its own uid it still takes from the disk
        else:
            written += min(held, max(0, lost))
        self._known, self._free_then = written, free
        if written >= self._limit or usage.files - self._before.files >= MOST_FILES:
            return True
        if usage.largest >= self._limit > self._before.largest:
            return True  # RLIMIT_FSIZE has stopped it
        return scarce and written > NOTICEABLE

    def _nameless(self) -> int | None:
        if self._first is None:
            return 0
        return nameless(descendants(self._first), {os.stat(path).st_dev for path in self._paths})

    def _room(self) -> tuple[int, int]:
        status = os.statvfs(self._paths[0])
        return status.f_bavail * status.f_frsize, status.f_ffree


class TreeWatch:
    """Memory and tasks of all descendants of one process (a sandbox's first), read from /proc.

    Every `whole`th look goes over all processes of the machine; the others go down from the first, which costs nothing
    where many watch, but may miss one of which a sibling ends at that moment.
    """

    def __init__(self, first: int, limits: Quantities, *, whole: int = 1) -> None:
        self._first, self._limits, self._whole = first, limits, whole
        self._looks = 0
        self.peak = 0

    def exceeded(self) -> Limit | None:
        pids = below(self._first) if self._looks % self._whole else None
        self._looks += 1
        if pids is None:
            pids = descendants(self._first)
        tasks, resident = 0, 0
        page = os.sysconf("SC_PAGE_SIZE")
        for pid in pids:
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                tasks += int(fields[17])
                resident += int(fields[21]) * page
        self.peak = max(self.peak, resident)
        if resident > self._limits.memory and self._proportional(pids) > self._limits.memory:
            return "out_of_memory"
        # The first process and bubblewrap's own are part of the count that RLIMIT_NPROC stops.
        return "too_many_processes" if tasks >= self._limits.pids else None

    def _proportional(self, pids: list[int]) -> int:
        """The sum of PSS: memory shared between processes counts once. Dear, so only asked when RSS says too much."""
        total = 0
        for pid in pids:
            with contextlib.suppress(OSError, ValueError, IndexError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith(("Pss:", "SwapPss:")):
                        total += int(line.split()[1]) * 1024
        return total


def descendants(first: int) -> list[int]:
    """`first` and all below it. In a pid namespace orphans fall to its first process: nothing escapes the count."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                parent = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found, waiting = list[int](), [first]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting.extend(children.get(pid, ()))
    return found


def below(first: int) -> list[int] | None:
    """The same by the kernel's own lists of children; None where it keeps none."""
    found, waiting = list[int](), [first]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        with contextlib.suppress(OSError):
            tasks = os.listdir(f"/proc/{pid}/task")
            if pid == first and not os.path.exists(f"/proc/{pid}/task/{pid}/children"):
                return None
            for task in tasks:
                with contextlib.suppress(OSError):
                    waiting.extend(map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split()))
    return found


def nameless(pids: list[int], devices: set[int]) -> int | None:
    """Bytes of the files on `devices` that have no name any more, and that these processes have open or mapped.

    None where they have so many that to look at all of them would keep the run's own watch from looking at the run.
    """
    opened: dict[tuple[int, int], int] = {}
    mapped: dict[tuple[int, int], int] = {}
    until = time.thread_time() + MOST_SECONDS
    for pid in pids:
        with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    info = entry.stat()
                    if info.st_nlink == 0 and stat.S_ISREG(info.st_mode) and info.st_dev in devices:
                        opened[info.st_dev, info.st_ino] = info.st_blocks * 512
        with contextlib.suppress(OSError, ValueError):
            for line in Path(f"/proc/{pid}/maps").read_bytes().splitlines():
                if line.endswith(b" (deleted)"):
                    _note_mapped(mapped, line)
        if time.thread_time() > until:
            return None
    return sum(opened.values()) + sum(size for key, size in mapped.items() if key not in opened and key[0] in devices)


def _note_mapped(mapped: dict[tuple[int, int], int], line: bytes) -> None:
    where, _, offset, device, number, _ = line.split(maxsplit=5)
    major, minor = (int(part, 16) for part in device.split(b":"))
    key = (os.makedev(major, minor), int(number))
    begin, end = (int(part, 16) for part in where.split(b"-"))
    mapped[key] = max(mapped.get(key, 0), int(offset, 16) + end - begin)
