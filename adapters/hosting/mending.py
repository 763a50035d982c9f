"""The files of live releases: what was edited, replaced or removed is put back from the store, or reported.

Cheap, because the store is sealed and trees are links into it: two looks at an inode per file, no byte read. Bytes are
read by `scrub`, seldom and behind everything else.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from adapters.artifact.manifest import Manifest, parse_manifest
from adapters.hosting.drift import DriftBook
from adapters.hosting.layout import HostFolders
from adapters.hosting.releases import digest_of, is_suspended, lacks
from adapters.hosting.repair import repair_tree
from adapters.hosting.store import ContentStore
from adapters.hosting.switch import ReleaseSwitch
from adapters.hosting.trees import ReleaseTrees
from headway.errors import HeadwayError

# Seconds between two looks at the files of one environment: at least, at most, and what share of one core all of them
# may take in between.
LEAST, MOST, SHARE = 7.0, 30.0, 0.05
SHOWN: Final = 5
log = logging.getLogger("headway.upkeep")


class Mender:
    """Thread-safe: one environment at a time is the caller's to see to."""

    def __init__(
        self, folders: HostFolders, store: ContentStore, trees: ReleaseTrees, book: DriftBook, *, every: float = LEAST
    ) -> None:
        self._folders = folders
        self._store = store
        self._trees = trees
        self._book = book
        self._every = every
        self._looked: dict[str, float] = {}
        self._took: dict[str, float] = {}

    def pace(self) -> float:
        """Seconds between two looks: short on a small host, longer where there is much to look at."""
        took = sum(list(self._took.values()))
        return max(self._every, min(MOST, took / SHARE)) if self._every else 0.0

    def mend(self, env_id: str) -> bool:
        """Whether the live release is there as far as its folder goes: it says what should run.

        Its files are looked at every so often, and each time while something of them waits for others.
        """
        switch = ReleaseSwitch(self._folders.environment(env_id))
        live = switch.last_step().live
        release = switch.release(live)
        if not live or is_suspended(release):
            self._took.pop(env_id, None)
            self._book.close(env_id)
            return True
        if missing := lacks(release, env_id):
            self._book.open(env_id, live, "release", f"{missing} of the release's folder is gone")
            return False
        now = time.monotonic()
        pace = self.pace()
        if now - self._looked.get(env_id, -pace) >= pace or self._book.open_in(env_id):
            self._looked[env_id] = now
            began = time.thread_time()
            self._look(env_id, live, digest_of(release) or "")
            self._took[env_id] = time.thread_time() - began
        return True

    def forget_broken(self) -> list[Path]:
        """`scrub`: broken contents leave the store, and trees of releases that are not live are made anew with their
        next rollout. The live ones are put right by the next look.
        """
        broken = list(self._store.scrub())
        if broken:
            log.warning("%d contents of the store were broken: they are fetched again", len(broken))
            with self._trees.exclusive() as free:
                if free:
                    self._trees.collect(self._live() | self._whole())
            self._looked.clear()
        return broken

    def _look(self, env_id: str, live: int, digest: str) -> None:
        with self._trees.in_use():
            try:
                manifest = parse_manifest(self._trees.manifest(digest) or b"", digest=digest)
            except HeadwayError:
                self._book.open(env_id, live, "contents", "the tree, or its manifest, is gone or damaged")
                return
            missing = self._trees.missing(manifest)
            if missing:
                names = {(one.sha256, one.mode) for one in missing}
                paths = [one.path for one in manifest.files if (one.sha256, one.mode) in names]
                self._book.open(env_id, live, "contents", f"{_named(paths)}: the content is not what was stored")
                return
            changed = repair_tree(self._trees.folder(digest) / "root", manifest, self._store)
        if changed:
            self._book.mended(env_id, live, "tree", f"{_named(changed)}: put back as released")
        self._book.close(env_id)

    def _live(self) -> set[str]:
        found = set()
        for env in self._folders.environments.iterdir():
            if (digest := digest_of(env / "current")) is not None:
                found.add(digest)
        return found

    def _whole(self) -> set[str]:
        """Trees of which the store holds every content."""
        found = set()
        for folder in self._folders.trees.iterdir():
            manifest = _manifest(folder)
            if manifest is not None and not self._trees.missing(manifest):
                found.add(folder.name)
        return found


class Scrubber:
    """Reads and hashes the whole store now and then. The time of the last one outlives the process."""

    def __init__(self, folders: HostFolders, scrub: Callable[[], object], every: float) -> None:
        self._stamp = folders.root / "scrubbed"
        self._scrub = scrub
        self._every = every

    def run(self) -> None:
        """For ever, in a daemon's thread: what a scrub leaves off the next one does. `every` 0 is never."""
        # Linux takes this for the calling thread alone: whoever serves or rolls goes first.
        os.setpriority(os.PRIO_PROCESS, 0, 19)
        while self._every:
            time.sleep(self.due_in())
            try:
                self._scrub()
            except Exception:
                log.exception("scrubbing failed")
            self._stamp.touch()

    def due_in(self) -> float:
        """In seconds. A host that is new has nothing to read yet."""
        if not self._stamp.exists():
            self._stamp.touch()
        return max(0.0, self._stamp.stat().st_mtime + self._every - time.time())


def _manifest(folder: Path) -> Manifest | None:
    try:
        return parse_manifest((folder / "manifest.json").read_bytes(), digest=folder.name)
    except (OSError, HeadwayError):
        return None


def _named(paths: list[str]) -> str:
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return f"{', '.join(paths[:SHOWN])}{more}"
