"""Beside the signing worker: enters into the ledger what was rolled, and what was signed before there was a ledger.

Rows are the outbox. A release without an index is what is still to be entered; the entry and the index are one
transaction, and the subject is unique, so that a worker killed at any step enters nothing twice and leaves nothing out.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from sqlmodel import Session

from activities.ledger import About, Ledger, Then
from activities.sign import Keys, bundle_key
from adapters.ledger.bundles import bundle_of
from adapters.ledger.keyring import KeyRecord
from adapters.signer.bundle import MAX_BUNDLE, Policy, attest, check
from adapters.signer.records import (
    DecisionFacts,
    FindingFacts,
    KeyFacts,
    PolicyFacts,
    RolloutFacts,
    audit_statement,
    decision_of,
    decision_statement,
    finding_statement,
    key_statement,
    policy_statement,
    rollout_statement,
)
from headway.errors import HeadwayError
from store import audit, integrity, policies
from store import ledger as rows
from store.ledger import Unlogged
from store.models import Artifact, Release, Rollout, utcnow
from store.models_integrity import Finding
from store.models_policy import Decision
from store.models_policy import Policy as PolicyRow
from store.session import Store

log = logging.getLogger("headway.ledger")
BATCH = 100
ANCHOR_EVERY = 30.0
# What only time brings: the next anchor of the audit log.
LOOK_EVERY = 5.0


class Objects(Protocol):
    """What the recorder asks of the object store."""

    def get(self, key: str, max_bytes: int) -> bytes: ...

    def replace(self, key: str, body: bytes, sha256: str) -> None: ...


class Recorder:
    """`folder` is where the trust root is left for hosts, once every old bundle has its entry.

    `anchor_every` is how many seconds the audit log may grow before the ledger has its hash.
    """

    def __init__(
        self,
        store: Store,
        objects: Objects,
        ledger: Ledger,
        keys: Keys,
        folder: Path,
        *,
        anchor_every: float = ANCHOR_EVERY,
    ) -> None:
        self._store = store
        self._objects = objects
        self._ledger = ledger
        self._keys = keys
        self._announced: tuple[KeyRecord, ...] = ()
        self._folder = folder
        self._anchor_every = anchor_every
        self._entered_calls: float | None = None

    async def watch(self, *, every: float = 0.5) -> None:
        """For ever. Nobody waits for an entry: a switch is done when the host has switched."""
        adopted, looked = False, -LOOK_EVERY
        while True:
            try:
                adopted = adopted or await asyncio.to_thread(self.adopt)
                await asyncio.to_thread(self.announce)
                if await asyncio.to_thread(self._has_unlogged) or time.monotonic() - looked >= LOOK_EVERY:
                    looked = time.monotonic()
                    await self._enter()
            except Exception as error:
                why = error.message if isinstance(error, HeadwayError) else type(error).__name__
                log.warning("the ledger is written later: %s", why)
                await asyncio.sleep(10 * every)
            await asyncio.sleep(every)

    def _has_unlogged(self) -> bool:
        with self._store.read() as session:
            return rows.has_unlogged(session)

    async def _enter(self) -> None:
        """In steps, between which a worker that stops is let go."""
        await asyncio.to_thread(self.record_policies)
        while await asyncio.to_thread(self.record_decisions) + await asyncio.to_thread(self.record):
            pass
        await asyncio.to_thread(self.record_findings)
        await asyncio.to_thread(self.chain_calls)

    def record(self) -> int:
        """Enter the oldest releases that are not entered; how many there were."""
        with self._store.read() as session:
            waiting = rows.unlogged_releases(session, BATCH)
        for one in waiting:
            about = About(f"release:{one.release.id}", one.rollout.kind, one.release.site_id)
            entering = self._ledger.about(about, _point(one.release))
            attest(rollout_statement(_facts(one)), self._keys.current(), ledger=entering)
        return len(waiting)

    def record_policies(self) -> None:
        """Enter versions of policies: hosts hold rollouts to what is entered, and never go back behind it."""
        with self._store.read() as session:
            waiting = [(one, policies.minimum_of(session, one)) for one in rows.unlogged_policies(session, BATCH)]
        for policy, minimum in waiting:
            facts = PolicyFacts(
                policy_id=policy.id,
                site_id=policy.site_id,
                subject=policy.subject_id,
                version=policy.version,
                document=policy.document,
                digest=policy.digest,
                minimum=minimum,
                actor=policy.actor,
                set_at=policy.created_at,
            )
            entering = self._ledger.about(About(f"policy:{policy.id}", "policy", policy.site_id), _point(policy))
            attest(policy_statement(facts), self._keys.current(), ledger=entering)

    def record_decisions(self) -> int:
        """Enter the oldest decisions that are final and not entered; how many there were.

        What was allowed is judged here once more: a decision that the rules do not bear out is entered as disputed.
        """
        with self._store.read() as session:
            waiting = rows.unlogged_decisions(session, BATCH)
        for decision, rollout, artifact in waiting:
            about = About(f"decision:{decision.id}", "decision", decision.site_id)
            entering = self._ledger.about(about, _point(decision))
            facts = self._borne_out(decision, rollout, _decided(decision, rollout, artifact))
            attest(decision_statement(facts), self._keys.current(), ledger=entering)
        return len(waiting)

    def _borne_out(self, decision: Decision, rollout: Rollout, facts: DecisionFacts) -> DecisionFacts:
        if facts.outcome != "allowed":
            return facts
        with self._store.read() as session:
            verdict = policies.judge_again(session, decision, rollout)
        against = [one.as_dict() for one in (*verdict.refused, *verdict.held)]
        if not against:
            return facts
        log.error("the decision %s is disputed: %s", decision.id, against)
        return replace(facts, outcome="disputed", findings=against)

    def record_findings(self) -> None:
        """Enter how damage of the object store ended. What was lost and mended later is entered twice."""
        with self._store.read() as session:
            waiting = integrity.unlogged_findings(session, BATCH)
        for one in waiting:
            facts = _found(one)
            about = About(f"finding:{one.id}:{facts.outcome}", "integrity", one.site_id)
            entering = self._ledger.about(about, _point_finding(one))
            attest(finding_statement(facts), self._keys.current(), ledger=entering)

    def chain_calls(self) -> None:
        """Chain what callers did since, and now and then enter the chain's hash: it binds all that came before."""
        while self._has_calls():
            self._store.in_write(lambda session: audit.chain(session, BATCH))
        with self._store.read() as session:
            (seq, head), before = audit.head_of(session), audit.anchored(session)
        now = time.monotonic()
        if seq == before or (self._entered_calls is not None and now - self._entered_calls < self._anchor_every):
            return
        entering = self._ledger.about(
            About(f"audit:{seq}", "audit"), lambda session, _: audit.note_anchor(session, seq)
        )
        attest(audit_statement(seq, head), self._keys.current(), ledger=entering)
        self._entered_calls = now

    def _has_calls(self) -> bool:
        with self._store.read() as session:
            return audit.waits(session)

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


def _point(row: Release | Decision | PolicyRow) -> Then:
    def point(session: Session, index: int) -> None:
        session.get_one(type(row), row.id).log_index = index

    return point


def _point_finding(finding: Finding) -> Then:
    def point(session: Session, index: int) -> None:
        row = session.get_one(Finding, finding.id, with_for_update=True)
        if row.settled_at == finding.settled_at:
            row.log_index = index

    return point


def _found(finding: Finding) -> FindingFacts:
    return FindingFacts(
        finding_id=finding.id,
        site_id=finding.site_id,
        object=finding.object,
        name=finding.name,
        damage=finding.damage,
        outcome="mended" if finding.mended_at is not None else "lost",
        by=finding.mended_by,
        found_at=finding.found_at,
        settled_at=finding.settled_at or finding.found_at,
    )


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
        config=one.config,
        actor=one.release.actor,
        deployed_at=one.release.deployed_at,
        source_env_id=one.rollout.source_env_id,
        source_release_id=one.rollout.source_release_id,
        previous_release_id=one.rollout.previous_release_id,
        decision=decision_of(_decided(one.decision, one.rollout, one.artifact)) if one.decision else None,
    )


def _decided(decision: Decision, rollout: Rollout, artifact: Artifact) -> DecisionFacts:
    return DecisionFacts(
        decision_id=decision.id,
        rollout_id=rollout.id,
        kind=rollout.kind,
        digest=artifact.digest,
        artifact_id=artifact.id,
        site_id=decision.site_id,
        env_id=decision.env_id,
        outcome=decision.outcome,
        policies=decision.policies,
        findings=decision.findings,
        approvals=decision.approvals,
        override=decision.override,
        decided_at=decision.decided_at or decision.judged_at,
    )
