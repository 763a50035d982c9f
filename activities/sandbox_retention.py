"""What sandboxes leave in the object store: marked, looked at again, deleted; packs that are mostly dead are copied.

Part of the steps of retention (`activities/retention`). The same order: rows say that an object is doomed, the object
goes, the word goes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Final, Protocol

from adapters.artifact.snapshot import MAX_BYTES, SnapshotFile, dumped, parsed
from headway.errors import HeadwayError
from headway.ids import new_id
from store import sandbox_collection as rows
from store.collection import Rules
from store.models import utcnow
from store.models_sandbox_packs import SandboxPack, Snapshot
from store.sandbox_collection import Name, Thing
from store.sandbox_packs import hold, release
from store.sandboxes import expire, forget_files, pack_key, snapshot_key
from store.session import Store
from temporal.messages import Retained

BATCH: Final = 200
MOVED: Final = 200
PACKS: Final = 20
ALIVE: Final = 0.5
LARGEST: Final = 256 << 20
THINGS: Final[tuple[type[Thing], ...]] = (Snapshot, SandboxPack)


class Objects(Protocol):
    def get(self, key: str, max_bytes: int) -> bytes: ...

    def get_range(self, key: str, offset: int, size: int) -> bytes: ...

    def put_new(self, key: str, body: bytes | bytearray, sha256: str) -> bool: ...

    def stat(self, key: str) -> tuple[int, str] | None: ...

    def replace_that(self, key: str, body: bytes, sha256: str, etag: str) -> bool: ...


@dataclass(frozen=True)
class Tree:
    """A snapshot's files, and the ETag of the object that said so."""

    files: list[SnapshotFile]
    etag: str


class SandboxRetention:
    def __init__(self, store: Store, objects: Objects, rules: Rules, smallest: int) -> None:
        self.store, self.objects, self.rules, self.smallest = store, objects, rules, smallest

    def count(self) -> Retained:
        """What a dry run tells."""
        with self.store.read() as session:
            return Retained(**rows.unneeded(session))

    def mark(self) -> None:
        """Rows of ended sandboxes first: what only they name is not needed any more."""
        while self.store.in_write(expire):
            pass
        while self.store.in_write(lambda session: forget_files(session, utcnow())):
            pass
        for table in THINGS:
            while self.store.in_write(lambda session, table=table: rows.mark(session, table, BATCH)):  # type: ignore[misc]
                pass

    def collect(self) -> Retained:
        leases = self.store.in_write(rows.sweep_leases)
        taken = dict.fromkeys(THINGS, 0)
        size = spared = 0
        for table in THINGS:
            for name in self._due(table):
                was, freed = self.store.in_write(
                    lambda session, table=table, name=name: rows.collect(session, table, self.rules, name)  # type: ignore[misc]
                )
                taken[table] += was
                spared += not was
                size += freed
        return Retained(
            snapshots=taken[Snapshot],
            sandbox_packs=taken[SandboxPack],
            sandbox_bytes=size,
            spared=spared,
            leases=leases,
        )

    def _due(self, table: type[Thing]) -> list[Name]:
        with self.store.read() as session:
            return rows.due(session, table, self.rules, 100_000)

    def repack(self) -> int:
        """How many packs were copied: files and snapshots name the copy, and a wait later nothing names the old one."""
        with self.store.read() as session:
            found = rows.to_look_at(session, self.rules, self.smallest, PACKS)
        return sum(self._look(Name(one.team_id, one.sha256), one.size) for one in found)

    def _look(self, name: Name, size: int) -> bool:
        try:
            places, snapshots = self._counts(name, size)
        except HeadwayError as error:
            if error.code != "artifact.collected":
                raise
            places, snapshots = {}, {}
        alive = sum(places.values())
        copied = bool(places) and alive <= min(ALIVE * size, LARGEST)
        if copied:
            self._copy(name, places, snapshots)
        self.store.in_write(lambda session: rows.note_look(session, name))
        return copied

    def _counts(self, name: Name, size: int) -> tuple[dict[int, int], dict[str, Tree]]:
        """Sizes by offset of what counts, and the snapshots that name the pack. Rows are asked first."""
        with self.store.read() as session:
            places, digests = rows.places_in(session, name), rows.snapshots_of(session, name)
        snapshots: dict[str, Tree] = {}
        for digest in digests:
            if sum(places.values()) > ALIVE * size:
                break
            key = snapshot_key(name.team_id, digest)
            known = self.objects.stat(key)
            files = parsed(self.objects.get(key, MAX_BYTES), digest)
            snapshots[digest] = Tree(files, known[1] if known is not None else "")
            places |= {one.offset: one.size for one in files if one.pack == name.sha256}
        return places, snapshots

    def _copy(self, old: Name, places: dict[int, int], snapshots: dict[str, Tree]) -> None:
        """Leased until files and snapshots name it."""
        body, moved = bytearray(), {}
        for offset, size in sorted(places.items()):
            moved[offset] = len(body)
            body += self.objects.get_range(pack_key(old.team_id, old.sha256), offset, size)
        new, holder = hashlib.sha256(body).hexdigest(), new_id("lease")
        self.store.in_write(lambda session: hold(session, old.team_id, holder, {new: len(body)}))
        self.objects.put_new(pack_key(old.team_id, new), body, new)
        pairs = list(moved.items())
        for start in range(0, len(pairs), MOVED):
            some = pairs[start : start + MOVED]
            self.store.in_write(lambda session, some=some: rows.move_files(session, old, new, some))  # type: ignore[misc]
        for digest, tree in snapshots.items():
            self._follow(old, new, digest, tree, moved)
        self.store.in_write(lambda session: release(session, holder))

    def _follow(self, old: Name, new: str, digest: str, tree: Tree, moved: dict[int, int]) -> None:
        """The same tree, elsewhere: its digest stays. Row first, so that no pack is named that is not kept; and only in
        the place of what was read: another run may be at the same snapshot for another pack.
        """
        there = [
            replace(one, pack=new, offset=moved[one.offset]) if one.pack == old.sha256 else one for one in tree.files
        ]
        raw = dumped(there)
        if not self.store.in_write(lambda session: rows.name_also(session, old.team_id, digest, new)):
            return
        key, sha256 = snapshot_key(old.team_id, digest), hashlib.sha256(raw).hexdigest()
        if self.objects.replace_that(key, raw, sha256, tree.etag):
            self.store.in_write(lambda session: rows.leave(session, old.team_id, digest, old.sha256))
