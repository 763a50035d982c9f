"""Hosts: what to place, and which names lead to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from api.parts import Objects
from headway.broker import Drifts, Hostnames, Noted, RollSpec
from store.artifacts import object_key, pack_key
from store.broker import hostnames, to_place
from store.domains import redirects_of
from store.drifts import note_drifts
from store.ledger import document
from store.queue import commit_rollout
from store.session import Store

READ_SECONDS: Final = 3600


class Rollouts:
    def __init__(self, store: Store, objects: Objects, site_url: Callable[[str], str]) -> None:
        self.store = store
        self.objects = objects
        self.site_url = site_url

    def spec(self, rollout_id: str) -> RollSpec:
        """Addresses that read just this artifact's objects, for an hour."""
        with self.store.read() as session:
            found = to_place(session, rollout_id)
            keyring = document(session, "keyring")
        rollout, artifact = found.rollout, found.artifact

        def read(key: str) -> str:
            return self.objects.presign_get(key, READ_SECONDS)

        parts = {part: read(object_key(artifact.site_id, artifact.digest, part)) for part in DOCUMENTS}
        return RollSpec(
            rollout_id=rollout.id,
            job_id=rollout.job_id,
            kind=rollout.kind,
            site_id=artifact.site_id,
            env_id=rollout.env_id,
            artifact_id=artifact.id,
            digest=artifact.digest,
            manifest_url=parts["manifest"],
            layout_url=parts["layout"],
            bundle_url=parts["bundle"],
            packs={sha256: read(pack_key(artifact.site_id, sha256)) for sha256 in found.packs},
            apply_seq=rollout.apply_seq or 0,
            undo_seq=rollout.undo_seq or 0,
            hostnames=found.hostnames,
            config_version=rollout.config_version,
            keyring=keyring.body.decode() if keyring else "",
            instances=rollout.instances or 0,
        )

    def commit(self, rollout_id: str) -> str:
        """The job whose point of no return this is."""
        return self.store.in_write(lambda session: commit_rollout(session, rollout_id).job_id)

    def note_drifts(self, host_id: str, body: Drifts) -> Noted:
        """What a host found. Of environments that are not on it, or gone, nothing is kept."""
        return Noted(noted=self.store.in_write(lambda session: note_drifts(session, host_id, body.drifts)))

    def hostnames(self, env_id: str) -> Hostnames:
        with self.store.read() as session:
            led = {name: self.site_url(target) for name, target in redirects_of(session, env_id).items()}
            return Hostnames(env_id=env_id, hostnames=hostnames(session, env_id), redirects=led)


DOCUMENTS: Final = ("manifest", "layout", "bundle")
