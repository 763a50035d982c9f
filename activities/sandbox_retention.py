"""What sandboxes leave in the object store: marked, looked at again, deleted; packs that are mostly dead are copied.

Part of the steps of retention (`activities/retention`). The same order: rows say that an object is doomed, the object
goes, the word goes.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
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

    def replace(self, key: str, body: bytes, sha256: str) -> None: ...


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

    def _counts(self, name: Name, size: int) -> tuple[dict[int, int], dict[str, list[SnapshotFile]]]:
        """Sizes by offset of what counts, and the files of the snapshots that name the pack. Rows are asked first."""
        with self.store.read() as session:
            places, digests = rows.places_in(session, name), rows.snapshots_of(session, name)
        snapshots: dict[str, list[SnapshotFile]] = {}
        for digest in digests:
            if sum(places.values()) > ALIVE * size:
                break
            raw = self.objects.get(snapshot_key(name.team_id, digest), MAX_BYTES)
            snapshots[digest] = parsed(raw, digest)
            places |= {one.offset: one.size for one in snapshots[digest] if one.pack == name.sha256}
        return places, snapshots

    def _copy(self, old: Name, places: dict[int, int], snapshots: dict[str, list[SnapshotFile]]) -> None:
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
        for digest, files in snapshots.items():
            self._follow(old, new, digest, files, moved)
        self.store.in_write(lambda session: release(session, holder))

    def _follow(self, old: Name, new: str, digest: str, files: list[SnapshotFile], moved: dict[int, int]) -> None:
        """The same tree, elsewhere: its digest stays. Row first, so that no pack is named that is not kept."""
        there = [replace(one, pack=new, offset=moved[one.offset]) if one.pack == old.sha256 else one for one in files]
        raw = dumped(there)
        if self.store.in_write(lambda session: rows.name_also(session, old.team_id, digest, new)):
            self.objects.replace(snapshot_key(old.team_id, digest), raw, hashlib.sha256(raw).hexdigest())
            self.store.in_write(lambda session: rows.leave(session, old.team_id, digest, old.sha256))
