"""What stands between root and a role: its view of the file system, its user namespace, its groups, its uid.

A role that must run others' code under more uids gets a user namespace in which it is root and can be those uids, and
no other uid of the machine: not root, and no other role. It is one namespace as long as anything lives in it, so
that a restarted worker finds, and may end, what an earlier one started.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_BIND, MS_REC, MS_PRIVATE, MS_NOSUID, MS_NODEV = 0x1000, 0x4000, 0x40000, 0x2, 0x4
NS_GET_PARENT: Final = 0xB702  # linux/nsfs.h
PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 4, 8, 47, 2
CAP_NET_BIND_SERVICE: Final = 10
_CAPABILITY_VERSION_3: Final = 0x20080522
_ROUNDS: Final = 5


@dataclass(frozen=True)
class User:
    """`uid` is the group's number too. `ranges` are `(first, count)`: uids that the role may become beside its own.

    `reach` are paths that it must get to, whatever private folders lie above them; `low_ports`: it may listen below
    1024.
    """

    uid: int
    groups: tuple[int, ...] = ()
    ranges: tuple[tuple[int, int], ...] = ()
    reach: tuple[str, ...] = ()
    low_ports: bool = False

    @classmethod
    def of(cls, raw: dict[str, Any]) -> User:
        return cls(
            uid=raw["uid"],
            groups=tuple(raw["groups"]),
            ranges=tuple((first, count) for first, count in raw["ranges"]),
            reach=tuple(raw["reach"]),
            low_ports=raw["low_ports"],
        )

    def holds(self, uid: int) -> bool:
        """Whether a process of `uid` is one of the role's."""
        return uid == self.uid or any(first <= uid < first + count for first, count in self.ranges)


def become(user: User) -> dict[str, str]:
    """Turn this process, which is root with a single thread, into the role; what it gets in its environment for it.

    Errors: OSError.
    """
    _open_the_way(user)
    given = _own_cgroups(user) if user.ranges else {}
    os.setgroups(user.groups)
    if user.ranges:
        _enter_user_namespace(user)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    else:
        _libc("prctl", PR_SET_KEEPCAPS, int(user.low_ports), 0, 0, 0)
        os.setresgid(user.uid, user.uid, user.uid)
        os.setresuid(user.uid, user.uid, user.uid)
        if user.low_ports:
            _keep_low_ports()
    # A change of uid takes /proc/self away from the process; one that is executed next would have it back.
    _libc("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)
    return given


def main() -> None:
    """`[USER as JSON] ARGV…`: become the role, then execute."""
    user, argv = User.of(json.loads(sys.argv[1])), sys.argv[2:]
    here = os.getcwd()
    try:
        os.environ.update(become(user))
        os.chdir(here)
        os.execvpe(argv[0], argv, os.environ)  # noqa: S606 - no shell is the point
    except OSError as error:
        sys.stderr.write(f"uid {user.uid} cannot run {error.filename or argv[0]}: {error.strerror}\n")
        sys.exit(126)


# the view


def closed(path: Path, user: User) -> Path | None:
    """The first folder above `path` that the role may not enter; None where it gets there."""
    for folder in reversed(path.parents):
        info = folder.stat()
        needed = stat.S_IXOTH
        if info.st_uid == user.uid:
            needed = stat.S_IXUSR
        elif info.st_gid in (user.uid, *user.groups):
            needed = stat.S_IXGRP
        if not info.st_mode & needed:
            return folder
    return None


def _open_the_way(user: User) -> None:
    """A private view in which a closed folder holds nothing but what the role needs of it, and may be entered."""
    wanted = _outermost([Path(path) for path in user.reach if os.path.exists(path)])
    seen = False
    for _ in range(_ROUNDS):
        ways: dict[Path, list[Path]] = {}
        for path in wanted:
            if (folder := closed(path, user)) is not None:
                ways.setdefault(folder, []).append(path)
        if not ways:
            return
        if not seen:
            _libc("unshare", CLONE_NEWNS)
            _mount(None, "/", None, MS_REC | MS_PRIVATE)
            seen = True
        for folder, paths in ways.items():
            if not any(folder != other and folder.is_relative_to(other) for other in ways):
                _replace(folder, paths)
    raise PermissionError(13, "cannot be reached by this uid", str(wanted[0]))


def _outermost(paths: Sequence[Path]) -> list[Path]:
    every = sorted({*paths, *(path.resolve() for path in paths)})
    return [path for path in every if not any(path != other and path.is_relative_to(other) for other in every)]


def _replace(folder: Path, paths: Sequence[Path]) -> None:
    held = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in paths]
    _mount("headway", str(folder), "tmpfs", MS_NOSUID | MS_NODEV, "mode=0711,size=1m")
    for path, handle in held:
        try:
            for parent in reversed(path.parents):
                if parent.is_relative_to(folder) and not parent.exists():
                    parent.mkdir(mode=0o711)
            if stat.S_ISDIR(os.fstat(handle).st_mode):
                path.mkdir(mode=0o711)
            else:
                path.touch(mode=0o600)
            _mount(f"/proc/self/fd/{handle}", str(path), None, MS_BIND | MS_REC)
        finally:
            os.close(handle)


# the namespace


def _enter_user_namespace(user: User) -> None:
    living = _living(user)
    if living is not None:
        try:
            _libc("setns", living, CLONE_NEWUSER)
        finally:
            os.close(living)
        return
    receiver, sender = os.pipe()
    me = os.getpid()
    helper = os.fork()
    if helper == 0:
        os._exit(_map(me, user, receiver, sender))
    os.close(receiver)
    try:
        _libc("unshare", CLONE_NEWUSER)
        os.write(sender, b"+")
    finally:
        os.close(sender)
        _, status = os.waitpid(helper, 0)
    if status != 0:
        raise PermissionError(1, "the user namespace of a role cannot be set up")


def _map(pid: int, user: User, receiver: int, sender: int) -> int:
    """In the helper, which stays outside and is root."""
    os.close(sender)
    if os.read(receiver, 1) != b"+":
        return 1
    lines = [f"0 {user.uid} 1", *(f"{first} {first} {count}" for first, count in user.ranges)]
    try:
        for name in ("gid_map", "uid_map"):
            Path(f"/proc/{pid}/{name}").write_text("\n".join(lines))
    except OSError:
        return 1
    return 0


def _living(user: User) -> int | None:
    """The role's namespace, if anything lives in it: one that was made right below ours."""
    ours = os.stat("/proc/self/ns/user")
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            if not user.holds(os.stat(f"/proc/{name}").st_uid):
                continue
            found = os.open(f"/proc/{name}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        if (top := _below(found, ours)) is not None:
            return top
    return None


def _below(namespace: int, ours: os.stat_result) -> int | None:
    """The ancestor of `namespace` whose parent is ours; closes what it was given if that is another."""
    while True:
        if os.path.samestat(os.fstat(namespace), ours):
            os.close(namespace)
            return None
        try:
            parent = fcntl.ioctl(namespace, NS_GET_PARENT)
        except OSError:
            os.close(namespace)
            return None
        if os.path.samestat(os.fstat(parent), ours):
            os.close(parent)
            return namespace
        os.close(namespace)
        namespace = parent


# what is kept of root's rights


def _own_cgroups(user: User) -> dict[str, str]:
    """Cgroups below which the role may make more, where root can: as the role's environment names them."""
    from headway import _launch

    _launch.enter()
    from adapters import cgroup

    return cgroup.lend(f"u{user.uid}", user.uid)


def _keep_low_ports() -> None:
    """Below 1024, and nothing else of root's."""
    one = 1 << CAP_NET_BIND_SERVICE
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(one, one, one, 0, 0, 0)
    _libc("capset", header, data)
    _libc("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0)


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    words = [text.encode() if text is not None else None for text in (source, target, kind, data)]
    _libc("mount", words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])


def _libc(name: str, *words: Any) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*words) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
