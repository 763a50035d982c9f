"""The bare repository of each hosted site: made, asked, and its branches moved.

A commit is kept under a hidden ref from the moment its push was accepted; its branch follows when the deploy has
succeeded. Git runs with an empty environment and one configuration file of ours.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headway.errors import HeadwayError
from headway.ids import is_id

HIDDEN: Final = "refs/headway"
PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_COMMIT: Final = re.compile("[0-9a-f]{40}")
_SECONDS: Final = 30
_CHUNK: Final = 1 << 20
# A lock that old is of a process that was killed: git holds one for milliseconds.
_STALE: Final = 60.0
_ABANDONED: Final = 86400.0
_MANY: Final = 50


@dataclass(frozen=True)
class Repositories:
    """`folder` holds `<site_id>.git`; `config` is the only configuration that git reads beside the repository's."""

    folder: Path
    config: Path

    def path(self, site_id: str) -> Path:
        if not is_id(site_id, "site"):
            raise HeadwayError("site.not_found", "There is no such site.")
        return self.folder / f"{site_id}.git"

    def environment(self) -> dict[str, str]:
        return {
            "PATH": PATH,
            "HOME": "/nonexistent",
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(self.config),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": "none",
        }

    def ensure(self, site_id: str, default_branch: str) -> Path:
        """The repository, made where it is missing, its HEAD at the default branch."""
        path = self.path(site_id)
        head = path / "HEAD"
        wanted = f"ref: refs/heads/{default_branch}\n"
        if not head.exists():
            make_bare(path, default_branch)
        if head.read_text("utf-8", "replace") != wanted:
            self._git(site_id, "symbolic-ref", "HEAD", f"refs/heads/{default_branch}")
        return path

    def bundle(self, site_id: str) -> Iterator[bytes]:
        """All of it as one file that git fetches from, commits that no branch has yet too. Raises repository.empty."""
        if not (self.path(site_id) / "HEAD").exists() or not self._git(site_id, "for-each-ref", "--count=1"):
            raise HeadwayError("repository.empty", "Nothing has been pushed to the site's own repository yet.")
        return self._bundled(site_id)

    def _bundled(self, site_id: str) -> Iterator[bytes]:
        words = ["git", "-C", str(self.path(site_id)), "bundle", "create", "-q", "-", "--all"]
        with subprocess.Popen(
            words, env=self.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as git:
            assert git.stdout is not None  # noqa: S101
            try:
                while chunk := git.stdout.read(_CHUNK):
                    yield chunk
            except BaseException:
                git.kill()
                raise
            if git.wait() != 0:
                raise HeadwayError("repository.unreachable", "git bundle failed in the site's repository.")

    def size(self, site_id: str) -> int:
        """Bytes of its packs."""
        try:
            with os.scandir(self.path(site_id) / "objects" / "pack") as entries:
                return sum(entry.stat().st_size for entry in entries)
        except FileNotFoundError:
            return 0

    def is_commit(self, site_id: str, object_id: str) -> bool:
        return self._git(site_id, "cat-file", "-t", object_id, check=False) == "commit"

    def is_ancestor(self, site_id: str, old: str, new: str) -> bool:
        done = self._run(site_id, "merge-base", "--is-ancestor", old, new)
        return done.returncode == 0

    def tip(self, site_id: str, branch: str) -> str | None:
        return self._git(site_id, "rev-parse", "--verify", "-q", f"refs/heads/{branch}^{{commit}}", check=False) or None

    def branch_now(self, site_id: str, branch: str) -> str | None:
        """The commit of a branch, None where there is none. Read by itself: no process for each push."""
        path, name = self.path(site_id), f"refs/heads/{branch}"
        with contextlib.suppress(OSError):
            if _COMMIT.fullmatch(found := (path / name).read_text("utf-8", "replace").strip()):
                return found
        with contextlib.suppress(OSError):
            for line in (path / "packed-refs").read_text("utf-8", "surrogateescape").splitlines():
                commit, _, ref = line.partition(" ")
                if ref == name:
                    return commit
        return None

    def in_the_way(self, site_id: str, branch: str) -> str | None:
        """A branch beside which this one cannot be: `a` and `a/b` are a file and a folder."""
        first = branch.split("/", 1)[0]
        found = self._git(site_id, "for-each-ref", "--format=%(refname)", f"refs/heads/{first}")
        others = (line.removeprefix("refs/heads/") for line in found.splitlines())
        near = (one for one in others if one.startswith(branch + "/") or branch.startswith(one + "/"))
        return next(near, None)

    def keep(self, site_id: str, commit: str) -> None:
        """From now on no collection takes it, whatever becomes of its branch."""
        self._ref(site_id, f"{HIDDEN}/kept/{commit}", commit)

    def move(self, site_id: str, branch: str, commit: str | None) -> None:
        """Set a branch, or with None delete it. Raises repository.unreachable where git cannot."""
        self._ref(site_id, f"refs/heads/{branch}", commit)

    def read(self, site_id: str, commit: str, name: str, most: int) -> bytes | None:
        """A file of a commit, None where there is none. Raises source.too_large."""
        at = f"{commit}:{name}"
        size = self._git(site_id, "cat-file", "-s", at, check=False)
        if not size.isdigit():
            return None
        if int(size) > most:
            raise HeadwayError("source.too_large", f"{name} is larger than {most} bytes.")
        return self._run(site_id, "cat-file", "blob", at).stdout

    def tidy(self) -> None:
        """What a killed git left behind is removed; many packs and many refs become few. Nothing is dropped."""
        for path in self.folder.glob("site_*.git"):
            for left in path.glob("objects/tmp_objdir-*"):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - left.stat().st_mtime > _ABANDONED:
                        shutil.rmtree(left, ignore_errors=True)
            site_id = path.name.removesuffix(".git")
            if len(list(path.glob("objects/pack/*.pack"))) > _MANY:
                # Without a look at what is reachable: a push whose commit has no ref yet loses nothing.
                self._run(site_id, "repack", "--geometric=2", "-d", "-q", seconds=600)
            if len(list(path.glob(f"{HIDDEN}/kept/*"))) > _MANY:
                self._run(site_id, "pack-refs", "--all", seconds=600)

    @contextlib.contextmanager
    def alone(self, site_id: str) -> Iterator[None]:
        """One mover of this site's branches at a time, between processes too."""
        handle = os.open(self.path(site_id) / "headway.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _ref(self, site_id: str, ref: str, commit: str | None) -> None:
        words = ["update-ref", "--no-deref", *(("-d", ref) if commit is None else (ref, commit))]
        done = self._run(site_id, *words)
        if done.returncode != 0 and self._clear_locks(site_id, ref):
            done = self._run(site_id, *words)
        if done.returncode != 0:
            why = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise HeadwayError("repository.unreachable", f"{ref} cannot be moved: {why[0] if why else 'no reason'}")

    def _clear_locks(self, site_id: str, ref: str) -> bool:
        """Remove what a git that was killed left behind; whether there was any."""
        found = False
        for path in (self.path(site_id) / f"{ref}.lock", self.path(site_id) / "packed-refs.lock"):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                if time.time() - path.stat().st_mtime > _STALE:
                    path.unlink()
                    found = True
        return found

    def _git(self, site_id: str, *words: str, check: bool = True) -> str:
        done = self._run(site_id, *words)
        if done.returncode != 0:
            if check:
                raise HeadwayError("repository.unreachable", f"git {words[0]} failed in the site's repository.")
            return ""
        return done.stdout.decode("utf-8", "surrogateescape").strip()

    def _run(self, site_id: str, *words: str, seconds: float = _SECONDS) -> subprocess.CompletedProcess[bytes]:
        command = ["git", "-C", str(self.path(site_id)), *words]
        try:
            return subprocess.run(
                command, env=self.environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            raise HeadwayError("repository.unreachable", f"git {words[0]} took too long.") from None


def make_bare(path: Path, default_branch: str) -> None:
    """An empty bare repository. Several may make it at once, and its folder's group may write to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = ["git", "init", "--quiet", "--bare", "--template=", f"--initial-branch={default_branch}", "--", str(path)]
    subprocess.run(
        command,
        check=True,
        capture_output=True,
        timeout=_SECONDS,
        umask=0o002,
        env={"PATH": PATH, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull},
    )
