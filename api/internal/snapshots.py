"""Snapshots of sandboxes, for whoever builds or runs commands on them: addresses of what they name, nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session

from adapters.artifact.snapshot import MAX_BYTES, parsed
from api.parts import Objects
from headway.broker import Addresses, SnapshotSource
from store.sandbox_packs import is_noted, named_packs
from store.sandboxes import pack_key, snapshot_key


def source_of(objects: Objects, team_id: str, digest: str) -> SnapshotSource:
    return SnapshotSource(sha256=digest, url=objects.presign_get(snapshot_key(team_id, digest)))


def addresses(session: Session, objects: Objects, team_id: str, digest: str, wanted: Sequence[str]) -> Addresses:
    """Of those packs that the snapshot names. One from before snapshots had rows is read itself."""
    if is_noted(session, team_id, digest):
        named = set(named_packs(session, team_id, digest, wanted))
    else:
        files = parsed(objects.get(snapshot_key(team_id, digest), MAX_BYTES), digest)
        named = {one.pack for one in files}.intersection(wanted)
    return Addresses(packs={one: objects.presign_get(pack_key(team_id, one)) for one in sorted(named)})
