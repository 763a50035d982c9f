"""The words in front of bubblewrap: limits, another uid, and a view of the host on which that uid can stand.

As root, bubblewrap's user namespace would map the real root; so the uid is dropped first, to a number of the slot.
That uid may be unable to reach a path (a data folder or a virtual environment below a home of mode 0700). Then root
binds such paths onto a private mount that only this process tree sees, and drops the uid after that: nothing has to
be copied or opened up on the host.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from adapters.sandbox.command import Limits
from headway.errors import HeadwayError

STAGES = ("/mnt", "/srv", "/media", "/opt", "/home", "/var/tmp")  # noqa: S108 – mount points only, in a private namespace
# Paths come as arguments, never as text of the script; a source may have been made since they were written. One
# program mounts all: each one more costs milliseconds.
STAGE_SCRIPT = """set -e
umask 022
at=$1 table=$2; shift 2
mount -t tmpfs -o mode=0711,size=1m headway "$at"
while [ "$1" != -- ]; do [ -d "$2" ] || : > "$at/$1"; shift 2; done
shift
printf '%s\\n' "$table" > "$at/table"
mount -a -T "$at/table"
exec "$@"
"""
# The command starts when a line comes, and never where the pipe only ends.
GATE = 'read -r go || [ "$go" ] || exit 125; exec "$@" </dev/null'
TOOLS = "/usr/sbin:/usr/bin:/sbin:/bin"


def reachable(path: Path, uid: int | None) -> bool:
    """Whether `uid` can pass every folder above `path` (its own rights apart)."""
    if uid is None:
        return True
    for folder in path.absolute().parents:
        try:
            info = folder.stat()
        except OSError:
            continue  # bubblewrap names what is missing
        needed = stat.S_IXUSR if info.st_uid == uid else stat.S_IXOTH
        if not info.st_mode & needed:
            return False
    return True


class Staging:
    """Where each source is to be found by the dropped uid; `words` prepare it."""

    def __init__(self, uid: int | None) -> None:
        self._uid = uid
        self._staged: dict[Path, str] = {}
        self._avoid: set[Path] = set()

    def reach(self, source: Path, whole: Path | None = None) -> Path:
        """The path to use for `source`. `whole`: the folder to stage for it (default: itself)."""
        source = source.absolute()
        self._avoid.add(source)
        self.__dict__.pop("_stage", None)
        if reachable(source, self._uid):
            return source
        top = (whole or source).absolute()
        if top not in self._staged:
            self._staged[top] = str(len(self._staged))
        # Relative to the stage until the stage is known: see `at`.
        return Path("@stage", self._staged[top], source.relative_to(top))

    def at(self, path: Path) -> Path:
        """The final form of what `reach` gave, when all sources are known."""
        return Path(self._stage, *path.parts[1:]) if path.parts[0] == "@stage" else path

    @property
    def words(self) -> list[str]:
        if not self._staged:
            return []
        stage = self._stage
        table = "\n".join(
            f"{_in_table(source)} {_in_table(Path(stage, name))} none bind,X-mount.mkdir 0 0"
            for source, name in self._staged.items()
        )
        staged = [word for source, name in self._staged.items() for word in (name, str(source))]
        return ["unshare", "--mount", "--", "sh", "-c", STAGE_SCRIPT, "stage", stage, table, *staged, "--"]

    @cached_property
    def _stage(self) -> str:
        used = {str(path) for source in self._avoid for path in (source, *source.parents)}
        for name in STAGES:
            if name not in used and Path(name).is_dir() and not Path(name).is_symlink():
                return name
        raise HeadwayError("internal.error", f"none of {', '.join(STAGES)} is free for a private mount")


def _in_table(path: Path) -> str:
    """A path as a field of fstab(5)."""
    return re.sub(r"[\s\\#]", lambda odd: "".join(f"\\{byte:03o}" for byte in os.fsencode(odd[0])), str(path))


@dataclass(frozen=True)
class Prefix:
    """What a machine needs before bubblewrap; `drop` is a uid of its own. A limit of 0 on disk or pids is not set.

    `low`: behind everything that serves, also where no cgroup says so; its reads and writes too, as the kernel takes
    their order from the priority where nothing else is said.
    """

    limits: Limits
    drop: int | None
    low: bool = False

    @property
    def words(self) -> list[str]:
        words = ["nice", "-n", "10"] if self.low else []
        words += ["prlimit", "--core=0:0", f"--nofile={self._files}:{self._files}"]
        words += [f"--fsize={self.limits.disk}:{self.limits.disk}"] if self.limits.disk else []
        if self.drop is not None:
            tasks = self.limits.pids + 8  # exact where no cgroup counts; above the cgroup's limit where one does
            words += [f"--nproc={tasks}:{tasks}"] if self.limits.pids else []
            words += ["setpriv", f"--reuid={self.drop}", f"--regid={self.drop}"]
            words += ["--clear-groups", "--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all"]
            words += ["--bounding-set=-all", "--pdeathsig", "KILL"]
        return words

    @property
    def _files(self) -> int:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        return self.limits.nofile if hard == resource.RLIM_INFINITY else min(hard, self.limits.nofile)


def missing_tools(drop: bool) -> list[str]:
    """Programs of util-linux that are not there."""
    wanted: Sequence[str] = ("prlimit", "setpriv", "unshare", "mount") if drop else ("prlimit",)
    return [name for name in wanted if shutil.which(name, path=TOOLS + os.pathsep + os.environ.get("PATH", "")) is None]
