"""The view from inside, as options of bubblewrap: a read-only toolchain, a few made-up files of /etc, the workspace.

Sources: bwrap(1). Options travel by descriptor (`--args`), so neither `ps` nor /proc/1/cmdline shows the host's paths
or the environment.
"""

from __future__ import annotations

import os
import posixpath
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from adapters.sandbox import seccomp
from adapters.sandbox.certificates import INSIDE as CA_FILE
from adapters.sandbox.certificates import VARIABLES as CA_VARIABLES
from headway.errors import HeadwayError

UID = 1000
HOME = "/home/build"
WORKSPACE = "/workspace"
SHARED_MEMORY = 64 << 20
SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Last: names that programs are known by elsewhere, and not on this machine.
ALIASES = "/headway/bin"
SEARCH = f"{SYSTEM}:{ALIASES}"
TOP_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
FROM_ETC = ("ld.so.cache", "alternatives", "localtime")
# Configuration of package clients below /usr may hold tokens; their public part comes by environment.
HIDDEN = ("/usr/etc/npmrc", "/usr/local/etc/npmrc", "/usr/pip.conf", "/usr/local/pip.conf")
BUILDS = {"CI": "true", "USER": "build"}
RESERVED = ("/", "/proc", "/dev", "/usr", "/etc", "/bin", "/lib", "/lib64", "/sbin")

PASSWD = "root:x:0:0:root:/:/usr/sbin/nologin\n{user}:x:{uid}:{uid}:{user}:{home}:/bin/sh\n"  # noqa: S105
GROUP = "root:x:0:\n{user}:x:{uid}:\n"
NSSWITCH = "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n"
HOSTS = "127.0.0.1 localhost {user}\n::1 localhost\n"


class Holder(Protocol):
    """Takes contents that bubblewrap reads from a descriptor; what it gives becomes the word in its place."""

    def hold(self, name: str, content: bytes) -> object: ...


class Descriptors:
    """Files in memory that a child inherits; closed together."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def hold(self, name: str, content: bytes) -> int:
        number = os.memfd_create(name)
        self.numbers.append(number)
        os.write(number, content)
        os.lseek(number, 0, os.SEEK_SET)
        return number

    def close(self) -> None:
        while self.numbers:
            os.close(self.numbers.pop())


@dataclass(frozen=True)
class Bind:
    source: Path
    target: str
    writable: bool


@dataclass(frozen=True)
class Inside:
    """What the sandboxed process finds. `binds` come in order; `names` are added to /etc/hosts as (address, name).

    `memory` are folders that live in memory, of so many bytes. `own_network` False: the caller has made one already.
    """

    cwd: str
    env: Mapping[str, str]
    binds: Sequence[Bind]
    certificates: Path | None = None
    names: Sequence[tuple[str, str]] = ()
    toolchains: Sequence[Path] = ()
    shut_namespaces: bool = True
    extra: Sequence[str] = field(default_factory=tuple)
    user: str = "build"
    home: str = HOME
    memory: Sequence[tuple[str, int]] = ()
    own_network: bool = True


def options(inside: Inside, files: Holder) -> list[str]:
    """bubblewrap's options; the command is no option and stays on its command line."""
    words = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    words += ["--unshare-net"] if inside.own_network else []
    words += ["--unshare-cgroup-try", "--hostname", inside.user, "--uid", str(UID), "--gid", str(UID)]
    words += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]
    if inside.shut_namespaces:
        words += ["--disable-userns"]
    words += list(_system(files))
    words += ["--proc", "/proc", "--dev", "/dev", "--size", str(SHARED_MEMORY), "--tmpfs", "/dev/shm"]  # noqa: S108
    words += ["--remount-ro", "/dev", "--dir", "/run", "--symlink", "/tmp", "/var/tmp"]  # noqa: S108
    facts = {"user": inside.user, "uid": UID, "home": inside.home}
    hosts = HOSTS.format(**facts) + "".join(f"{address} {name}\n" for address, name in inside.names)
    for name, text in (
        ("passwd", PASSWD.format(**facts)),
        ("group", GROUP.format(**facts)),
        ("nsswitch.conf", NSSWITCH),
        ("hosts", hosts),
        ("resolv.conf", ""),
    ):
        words += ["--ro-bind-data", str(files.hold(name, text.encode())), f"/etc/{name}"]
    if inside.certificates is not None:
        words += ["--ro-bind", str(inside.certificates), CA_FILE]
    for folder in inside.toolchains:
        words += ["--ro-bind", str(folder), str(folder)]
    if (python := missing_python(inside.toolchains)) is not None:
        words += ["--symlink", python, f"{ALIASES}/python"]
    for target, size in inside.memory:
        words += ["--size", str(size), "--tmpfs", target]
    for bind in inside.binds:
        words += ["--bind" if bind.writable else "--ro-bind", str(bind.source), bind.target]
    for key, value in inside.env.items():
        words += ["--setenv", key, value]
    if seccomp.supported():
        words += ["--seccomp", str(files.hold("seccomp", seccomp.program()))]
    return [*words, "--remount-ro", "/", "--chdir", inside.cwd, *inside.extra]


def missing_python(toolchains: Sequence[Path]) -> str | None:
    """The `python3` that `python` should be, where a machine has no program of that name, as Debian; else None."""
    search = ":".join([*(str(folder / "bin") for folder in toolchains), SYSTEM])
    return None if shutil.which("python", path=search) else shutil.which("python3", path=search)


def _system(files: Holder) -> Iterator[str]:
    yield from ("--ro-bind", "/usr", "/usr")
    for name in TOP_LINKS:
        path = Path("/", name)
        if path.is_symlink():
            yield from ("--symlink", os.readlink(path), str(path))
        elif path.is_dir():
            yield from ("--ro-bind", str(path), str(path))
    for name in FROM_ETC:
        if Path("/etc", name).exists():
            yield from ("--ro-bind", f"/etc/{name}", f"/etc/{name}")
    for hidden in HIDDEN:
        if Path(hidden).is_file():
            yield from ("--ro-bind-data", str(files.hold("hidden", b"")), hidden)


def environment(
    given: Mapping[str, str],
    *,
    home: str,
    tmp: str,
    proxy: str | None,
    certificates: str | None,
    search: str,
    base: Mapping[str, str] = BUILDS,
) -> dict[str, str]:
    """What every run has, and `base`, under what this one is given."""
    env = {"PATH": search, "HOME": home, "TMPDIR": tmp, "LANG": "C.UTF-8", **base}
    if certificates is not None:
        env |= dict.fromkeys(CA_VARIABLES, certificates)
    if proxy is not None:
        env |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), proxy)
        env |= dict.fromkeys(("YARN_HTTP_PROXY", "YARN_HTTPS_PROXY"), proxy)
        env |= dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1,::1")
    env |= given
    for key, value in env.items():
        if not key or "=" in key or not is_word(key) or not is_word(value):
            raise HeadwayError("build.config_invalid", f"{key!r} is not a usable environment variable")
    return env


def is_word(text: str) -> bool:
    """Whether a program can be given it as an argument or a variable: no NUL, no half of a character."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def target_path(text: str) -> str:
    """A mount's target, made plain. Errors: `internal.error` for one that would hide the system."""
    plain = posixpath.normpath(text)
    if (
        not text.startswith("/")
        or ".." in text.split("/")
        or plain in RESERVED
        or plain.startswith(("/proc/", "/dev/"))
    ):
        raise HeadwayError("internal.error", f"{text!r} cannot be a mount's target")
    return plain


def working_folder(cwd: str) -> str:
    """`cwd` below the workspace. Errors: `build.config_invalid` for one that leaves it."""
    plain = posixpath.normpath(posixpath.join(WORKSPACE, cwd))
    if "\0" in cwd or (plain != WORKSPACE and not plain.startswith(WORKSPACE + "/")):
        raise HeadwayError("build.config_invalid", f"{cwd!r} is not a folder of the repository")
    return plain
