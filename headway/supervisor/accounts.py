"""The uids of a stack's roles: who has which, and who may read what of the data folder.

Nobody is entered in /etc/passwd: a role is a number that nothing else on the machine has, made from the folder's path.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headway import _launch
from headway.ids import secret_digits
from headway.supervisor import processes
from headway.supervisor.becoming import User
from headway.supervisor.folder import Folder, write_secret
from headway.supervisor.plan import Component

# Below the uids of apps and of builds; above what distributions give out (systemd.io/UIDS-GIDS).
FIRST, BLOCKS = 1_200_000_000, 1_000_000
SMALL_FIRST, SMALL_BLOCKS = 19_000, 30  # where a container maps only 65,536 uids
BLOCK: Final = 32
NAMES: Final = ("api", "control", "builder", "signing", "host", "rules", "caddy", "weed", "temporal")
# Who works under the uid of another one.
SHARES: Final = {"migrate": "api", "retention": "temporal", "attributes": "temporal"}
# Groups without a user: who may get into the folder at all, has the rows, serves the sites, keeps repositories.
GROUPS: Final = ("stack", "rows", "sites", "repositories")
MEMBERS: Final = {
    "api": ("rows", "repositories"),
    "control": ("rows", "repositories"),
    "signing": ("rows",),
    "caddy": ("sites",),
    "rules": ("sites",),
}
# Settings of package clients in the home of whoever called `up`: builds are set up as that machine is.
CLIENT_SETTINGS: Final = (".npmrc", ".pip", ".config/pip", ".config/uv", ".config/go")
# The family of an operator's key, as store.keys has it; a test holds them equal.
OPERATOR: Final = "mfk_live_"
PROBE_SECONDS: Final = 60
# Whether Python starts, and what it would import can be read. Nothing is imported: that takes a second.
_PROBE: Final = """
import importlib.util, pathlib, sys
sys.path.insert(0, sys.argv[1])
from headway import _launch
_launch.enter()
for name in ("headway", "temporal", "sqlalchemy", "fastapi", "temporalio"):
    origin = importlib.util.find_spec(name).origin
    open(origin, "rb").read(1)
for path in pathlib.Path(origin).with_name("bridge").glob("temporal_sdk_bridge*.so"):
    open(path, "rb").read(1)
"""


@dataclass(frozen=True)
class Accounts:
    """`base` is the first of the stack's uids; `reach` what every role must get to beside the data folder.

    `repositories` are read by the builder, and judged by the API: who serves is not started again where others are
    allowed. `signing` are files of the operator's for the signing worker alone. In a folder that it may not enter it
    sees those of its start: what is to be replaced lies in an open one. `root` names roles that stay what `up` is:
    their work needs it.
    """

    base: int
    folder: Folder
    reach: tuple[str, ...] = ()
    low_ports: bool = False
    signing: tuple[str, ...] = ()
    root: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()

    def uid(self, name: str) -> int:
        return 0 if name in self.root else self.gid(name)

    def gid(self, name: str) -> int:
        """Of a group, or of a role: its own."""
        if name in GROUPS:
            return self.base + len(NAMES) + GROUPS.index(name)
        return self.base + NAMES.index(name)

    def owns(self, uid: int) -> bool:
        return self.base <= uid < self.base + BLOCK

    def user(self, component: str) -> User | None:
        """None for what stays root: the nursery, and a role that needs it."""
        name = SHARES.get(component, component)
        if name not in NAMES or name in self.root:
            return None
        return User(
            uid=self.uid(name),
            groups=tuple(self.gid(group) for group in ("stack", *MEMBERS.get(name, ()))),
            ranges=self._ranges(name),
            reach=(str(self.folder.root), *self.reach, *self._own_reach(name)),
            low_ports=self.low_ports and name == "caddy",
        )

    def _own_reach(self, name: str) -> tuple[str, ...]:
        if name == "builder":
            return (*self.repositories, *_client_settings())
        if name == "api":
            return self.repositories
        return self.signing if name == "signing" else ()

    def _ranges(self, name: str) -> tuple[tuple[int, int], ...]:
        _launch.enter()
        from adapters.runtime.process import uids
        from adapters.sandbox import slots

        if name == "builder":
            return (slots.uid_range(self.folder.path("builder", "work")),)
        return (uids.uid_range(self.folder.path("host", "run")),) if name == "host" else ()


def accounts(
    folder: Folder,
    programs: Sequence[str],
    repositories: Sequence[str],
    *,
    low_ports: bool,
    signing: Sequence[str] = (),
    root: Sequence[str] = (),
) -> Accounts:
    """The uids of this folder's stack. `programs` are what its roles run beside it."""
    _launch.enter()
    from adapters.sandbox.slots import is_mapped

    seed = int(hashlib.sha256(os.fsencode(folder.root)).hexdigest()[:10], 16)
    base = FIRST + seed % BLOCKS * BLOCK
    if not is_mapped(base, BLOCK):
        base = SMALL_FIRST + seed % SMALL_BLOCKS * BLOCK
    python = (sys.prefix, sys.base_prefix, str(_launch.app_root()), _launch.python_path())
    reach = tuple(dict.fromkeys((*python, *programs)))
    return Accounts(base, folder, reach, low_ports, tuple(signing), tuple(root), tuple(repositories))


def of_plan(components: Iterable[Component], folder: Folder) -> Accounts | None:
    """The uids that a plan was made with."""
    users = {one.name: one.user for one in components if one.name in NAMES}
    first = users.get(NAMES[0])
    root = tuple(name for name, user in users.items() if user is None)
    return Accounts(first.uid, folder, root=root) if first is not None else None


def obstacle(wanted: Accounts) -> str:
    """Why the roles cannot have these uids here, tried with real processes; empty where they can. It takes a second."""
    users = [user for role in ("signing", "builder") if (user := wanted.user(role)) is not None]
    with ThreadPoolExecutor(len(users)) as pool:
        return next((said for said in pool.map(_try, users) if said), "")


def _try(user: User) -> str:
    words = [*processes.becoming(user), sys.executable, "-P", "-c", _PROBE, _launch.python_path()]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PROBE_SECONDS, cwd="/", check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"a process of uid {user.uid} ended with {done.returncode}"


def _client_settings() -> tuple[str, ...]:
    home = Path.home()
    return tuple(str(home / name) for name in CLIENT_SETTINGS if (home / name).exists())


def hand_out(folder: Folder, wanted: Accounts | None) -> None:
    """Give each part of the data folder to who has it; with None, all of it back to the one uid. Runs as root.

    What lies deeper is looked through only where the uids are others than those of the last time, or root was there.
    """
    stamp = folder.path("run", "uids.json")
    base = wanted.base if wanted is not None else None
    root = sorted(wanted.root) if wanted is not None else []
    before, root_before = _read_stamp(stamp)
    if base is None and not isinstance(before, int):
        return
    changed = (before, root_before) != (base, root)
    known = {0, os.geteuid()}
    for first in (before, base):
        if isinstance(first, int):
            known |= set(range(first, first + BLOCK))
    if wanted is not None:
        _make_missing(folder)
    for part in parts(wanted):
        path = folder.path(*part.path)
        if not path.exists():
            continue
        if part.deep and (changed or _is_mixed(path, part)):
            for _, names, files, folder_of_them in os.fwalk(path):
                for name in (*names, *files):
                    _give(name, folder_of_them, part, known)
        _give_part(path, part, known)
    folder.root.chmod(0o710 if wanted is not None else 0o700)
    os.chown(folder.root, -1, wanted.gid("stack") if wanted is not None else os.getegid())
    if changed:
        stamp.write_text(json.dumps({"base": base, "root": root}))


def take_back(components: Iterable[Component]) -> None:
    """Of a stopped stack: the cgroups that were lent to its roles."""
    lent = [one.user for one in components if one.user is not None and one.user.ranges]
    if lent:
        _launch.enter()
        from adapters import cgroup

        for user in lent:
            cgroup.take_back(f"u{user.uid}")


def make_database(folder: Folder) -> None:
    """An empty file, which is a new database: those who have the rows share it, and each would make it for itself."""
    path = folder.path("db", "headway.db")
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o660))


def _make_missing(folder: Folder) -> None:
    """What a role cannot make itself, in a folder that is not its own."""
    for name in NAMES:
        folder.own(name).mkdir(mode=0o700, exist_ok=True)
    key = folder.path("admin.key")
    if not key.exists():
        write_secret(key, f"{OPERATOR}{secret_digits()}\n")


@dataclass(frozen=True)
class Part:
    """Who has a file or a folder, and its mode; `deep`: everything below it, too, whose mode stays."""

    path: tuple[str, ...]
    uid: int
    gid: int
    mode: int
    deep: bool = False


def parts(wanted: Accounts | None) -> list[Part]:
    """Folders before what is special in them."""
    if wanted is None:
        uid, gid = os.geteuid(), os.getegid()
        names = [part.path for part in parts(Accounts(0, Folder(Path("/"))))]
        plain = {path: 0o600 if "." in path[-1] else 0o700 for path in names}
        return [Part(path, uid, gid, mode, deep="." not in path[-1]) for path, mode in plain.items()]

    def part(owner: str, mode: int, *path: str, group: str = "", deep: bool = True) -> Part:
        return Part(path, wanted.uid(owner), wanted.gid(group or owner), mode, deep)

    tokens = (
        part(role, 0o640, "secrets", f"broker-{role}.token", group="api", deep=False)
        for role in ("control", "builder", "signing", "host")
    )
    return [
        Part(("run",), 0, wanted.gid("stack"), 0o710),
        *(part(name, 0o700, "run", name) for name in ("control", "builder", "signing", "host", "caddy", "weed")),
        part("temporal", 0o700, "run", "temporal"),
        part("api", 0o710, "run", "api", group="stack"),
        part("rules", 0o2710, "run", "rules", group="caddy"),
        part("api", 0o2770, "db", group="rows"),
        part("api", 0o660, "db", "headway.db", group="rows", deep=False),
        part("api", 0o700, "events"),
        part("api", 0o700, "observed"),
        part("api", 0o2771, "repos", group="repositories"),
        part("api", 0o2711, "secrets", group="control", deep=False),
        part("weed", 0o600, "secrets", "s3.json", deep=False),
        *tokens,
        part("api", 0o600, "secrets", "config.key", deep=False),
        part("api", 0o640, "secrets", "webhooks.key", group="control", deep=False),
        part("signing", 0o750, "keys", group="stack"),
        part("signing", 0o750, "ledger", group="stack"),
        part("host", 0o750, "host", group="sites"),
        part("host", 0o755, "host", "routes", deep=False),
        part("builder", 0o711, "builder"),
        part("temporal", 0o700, "temporal"),
        part("weed", 0o700, "weed"),
        part("caddy", 0o2750, "caddy", group="host"),
        part("api", 0o600, "admin.key", deep=False),
    ]


def _is_mixed(folder: Path, part: Part) -> bool:
    """Whether root has put something there, such as a copy from a backup."""
    with os.scandir(folder) as entries:
        return part.uid != 0 and any(entry.stat(follow_symlinks=False).st_uid == 0 for entry in entries)


def _give(name: str, folder: int, part: Part, known: set[int]) -> None:
    """By descriptors, and never through a link: a role may be writing there."""
    with suppress(FileNotFoundError):
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if info.st_uid in known and (info.st_uid, info.st_gid) != (part.uid, part.gid):
            os.chown(name, part.uid, part.gid, dir_fd=folder, follow_symlinks=False)


def _give_part(path: Path, part: Part, known: set[int]) -> None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # a link, or gone: nothing of ours
    try:
        info = os.fstat(handle)
        if info.st_uid in known and (stat.S_ISDIR(info.st_mode) or info.st_nlink == 1):
            os.fchown(handle, part.uid, part.gid)
            os.fchmod(handle, part.mode)
    finally:
        os.close(handle)


def _read_stamp(stamp: Path) -> tuple[int | str | None, list[str]]:
    """Whose folder it was last, and which roles were root."""
    try:
        found = json.loads(stamp.read_text())
        base, root = found["base"], found.get("root", [])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "unknown", []
    return (base if base is None or isinstance(base, int) else "unknown"), root
