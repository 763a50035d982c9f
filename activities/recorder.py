"""Beside the signing worker: enters into the ledger what was rolled, and what was signed before there was a ledger.

Rows are the outbox. A release without an index is what is still to be entered; the entry and the index are one
transaction, and the subject is unique, so that a worker killed at any step enters nothing twice and leaves nothing out.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from sqlmodel import Session

from activities.ledger import About, Ledger, Then
from activities.sign import Keys, bundle_key
from adapters.ledger.bundles import bundle_of
from adapters.ledger.keyring import KeyRecord
from adapters.signer.bundle import MAX_BUNDLE, Policy, attest, check
from adapters.signer.records import KeyFacts, RolloutFacts, key_statement, rollout_statement
from headway.errors import HeadwayError
from store import ledger as rows
from store.ledger import Unlogged
from store.models import Artifact, Release, utcnow
from store.session import Store

log = logging.getLogger("headway.ledger")
BATCH = 100


class Objects(Protocol):
    """What the recorder asks of the object store."""

    def get(self, key: str, max_bytes: int) -> bytes: ...

    def replace(self, key: str, body: bytes, sha256: str) -> None: ...


class Recorder:
    """`folder` is where the trust root is left for hosts, once every old bundle has its entry."""

    def __init__(self, store: Store, objects: Objects, ledger: Ledger, keys: Keys, folder: Path) -> None:
        self._store = store
        self._objects = objects
        self._ledger = ledger
        self._keys = keys
        self._announced: tuple[KeyRecord, ...] = ()
        self._folder = folder

    async def watch(self, *, every: float = 0.5) -> None:
        """For ever. Nobody waits for an entry: a switch is done when the host has switched."""
        adopted = False
        while True:
            try:
                adopted = adopted or await asyncio.to_thread(self.adopt)
                await asyncio.to_thread(self.announce)
                while await asyncio.to_thread(self.record):
                    pass
            except Exception as error:
                why = error.message if isinstance(error, HeadwayError) else type(error).__name__
                log.warning("the ledger is written later: %s", why)
                await asyncio.sleep(10 * every)
            await asyncio.sleep(every)

    def record(self) -> int:
        """Enter the oldest releases that are not entered; how many there were."""
        with self._store.read() as session:
            waiting = rows.unlogged_releases(session, BATCH)
        for one in waiting:
            about = About(f"release:{one.release.id}", one.rollout.kind, one.release.site_id)
            entering = self._ledger.about(about, _point(one.release))
            attest(rollout_statement(_facts(one)), self._keys.current(), ledger=entering)
        return len(waiting)

    def announce(self) -> None:
        """Publish the keyring where it has changed; each change of a key is an entry of its own."""
        records = self._keys.records()
        if records == self._announced:
            return
        before = {one.hint: one for one in self._ledger.announced()}
        for record in records:
            for event, at in key_events(before.get(record.hint), record):
                facts = KeyFacts(event, record.hint, at, record.revoked_from, record.reason)
                since = f":{int(record.revoked_from.timestamp())}" if record.revoked_from else ""
                about = About(f"key:{record.hint}:{event}{since}", "key")
                attest(key_statement(facts), self._keys.current(), ledger=self._ledger.about(about))
        if records != tuple(before.values()):
            self._ledger.publish_keyring(records, [(key.hint, key.raw) for key in self._keys.at_hand()])
        self._announced = records

    def adopt(self) -> bool:
        """Enter the bundles that are older than the ledger, then publish the trust root that demands entries."""
        after = ""
        while True:
            with self._store.read() as session:
                found = rows.unlogged_artifacts(session, BATCH, after)
            for artifact in found:
                self._adopt(artifact)
                after = artifact.id
            if not found:
                break
        self._ledger.publish(self._folder)
        return True

    def _adopt(self, artifact: Artifact) -> None:
        if artifact.signed_at.replace(tzinfo=UTC) >= self._ledger.trusted.start:
            log.warning("artifact %s was signed beside the ledger: it stays out, and cannot be rolled", artifact.id)
            return
        name = bundle_key(artifact.site_id, artifact.digest)
        try:
            verified = check(
                self._objects.get(name, MAX_BUNDLE), artifact.digest, self._keys.ring(), Policy(artifact.site_id)
            )
        except HeadwayError as error:
            if error.retryable:
                raise
            log.warning("artifact %s stays out of the ledger, and can no longer be rolled: %s", artifact.id, error)
            return
        about = About(f"build:{verified.build_id}", "build", artifact.site_id)
        bundle = bundle_of(*self._ledger.append(verified.entry, about))
        self._objects.replace(name, bundle, hashlib.sha256(bundle).hexdigest())
        entered = check(bundle, artifact.digest, self._keys.ring(), Policy(artifact.site_id), ledger=self._ledger)

        def point(session: Session) -> None:
            session.get_one(Artifact, artifact.id).log_index = entered.log_index

        self._store.in_write(point)


def key_events(before: KeyRecord | None, now: KeyRecord) -> Iterator[tuple[str, datetime]]:
    """What became of a key since it was last published, and when."""
    if before is None:
        yield "introduced", now.not_before or utcnow()
    if now.revoked_from is not None and (before is None or before.revoked_from != now.revoked_from):
        yield "revoked", utcnow()
    elif now.revoked_from is None and now.not_after is not None and (before is None or before.not_after is None):
        yield "retired", now.not_after


def _point(release: Release) -> Then:
    def point(session: Session, index: int) -> None:
        session.get_one(Release, release.id).log_index = index

    return point


def _facts(one: Unlogged) -> RolloutFacts:
    return RolloutFacts(
        kind=one.rollout.kind,
        digest=one.artifact.digest,
        artifact_id=one.artifact.id,
        site_id=one.release.site_id,
        env_id=one.release.env_id,
        environment=one.environment.slug,
        release_id=one.release.id,
        rollout_id=one.rollout.id,
        sequence=one.release.seq,
        config=[str(one.release.config_version)],
        actor=one.release.actor,
        deployed_at=one.release.deployed_at,
        source_env_id=one.rollout.source_env_id,
        source_release_id=one.rollout.source_release_id,
        previous_release_id=one.rollout.previous_release_id,
    )
