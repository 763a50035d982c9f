"""Hosts: how to put a damaged object right. Whoever asks can write the right bytes there, in the damaged ones' place,
or nothing: the object store compares both by itself.
"""

from __future__ import annotations

from typing import Final, Literal

from sqlmodel import Session

from adapters.artifact.layout import MAX_BYTES, parse_layout
from api.parts import Objects
from headway.broker import MendSpec, Offer
from headway.errors import HeadwayError
from store.artifacts import object_key
from store.integrity import contents_of_pack, is_wanted, key_of, lent_by
from store.models_integrity import Finding
from store.repacking import users_of_pack
from store.session import Store

MEND_SECONDS: Final = 1800
Piece = tuple[str, int, int]


class Mending:
    def __init__(self, store: Store, objects: Objects) -> None:
        self.store = store
        self.objects = objects

    def spec(self, finding_id: str, host_id: str, offer: Offer) -> MendSpec:
        """Raises finding.not_found, also where rows no longer count on the object."""
        with self.store.read() as session:
            row = lent_by(session, finding_id, host_id)
            if not is_wanted(session, row.site_id, row.object, row.name):
                raise HeadwayError("finding.not_found", f"What {finding_id} is about has been collected.")
            known, users = self._known(session, row)
        kind: Literal["pack", "manifest"] = "pack" if row.object == "pack" else "manifest"
        pieces = self._pieces(row, known, users) if kind == "pack" else []
        key, size = key_of(row.site_id, row.object, row.name), row.size if kind == "pack" else offer.size
        url, headers = self.objects.presign_put(key, row.name, size, MEND_SECONDS, instead_of=row.etag)
        return MendSpec(
            finding_id=row.id,
            object=kind,
            sha256=row.name,
            size=size,
            pieces=pieces,
            get_url=self.objects.presign_get(key, MEND_SECONDS) if row.damage == "changed" else None,
            put_url=url,
            put_headers=headers,
        )

    def _known(self, session: Session, row: Finding) -> tuple[list[Piece], list[str]]:
        if row.object == "pack":
            return contents_of_pack(session, row.site_id, row.name), users_of_pack(session, row.site_id, row.name)
        if row.object == "manifest":
            return [], []
        raise HeadwayError("finding.not_found", f"No host has what {row.id} is about.")

    def _pieces(self, row: Finding, known: list[Piece], users: list[str]) -> list[Piece]:
        """What rows know to lie in the pack, and what only the layouts of its artifacts still do."""
        found = {sha: (sha, offset, size) for sha, offset, size in known}
        for digest in users:
            try:
                layout = parse_layout(self.objects.get(object_key(row.site_id, digest, "layout"), MAX_BYTES))
            except HeadwayError:
                continue  # damaged as well: what it would say may be in the rows
            found |= {
                sha: (sha, at.offset, at.size) for sha, at in layout.contents.items() if at.pack == row.name
            } | found
        return sorted(found.values(), key=lambda piece: piece[1])
