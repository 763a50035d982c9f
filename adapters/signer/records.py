"""What else is signed and entered into the ledger: rollouts, policies and what they decided, the ends of keys,
the audit log, damage that was found.

In-toto statements of our own. The subject of a rollout and of a decision is the artifact's manifest, that of a key the
SHA-256 of its SubjectPublicKeyInfo, that of the audit log the hash of its chain.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import rfc8785

from adapters.signer.statement import STATEMENT_TYPE, timestamp
from headway.errors import HeadwayError

ROLLOUT_TYPE: Final = "urn:headway:rollout:v1"
KEY_TYPE: Final = "urn:headway:key:v1"
DECISION_TYPE: Final = "urn:headway:decision:v1"
AUDIT_TYPE: Final = "urn:headway:audit:v1"
INTEGRITY_TYPE: Final = "urn:headway:integrity:v1"
POLICY_TYPE: Final = "urn:headway:policy:v1"
Json = dict[str, Any]


@dataclass(frozen=True)
class RolloutFacts:
    """A release as its row tells it. `digest` is hex; `config` has the ids of the values that it runs with.

    `decision` is what the policies said of it (`decision_of`), None where there were none.
    """

    kind: str
    digest: str
    artifact_id: str
    site_id: str
    env_id: str
    environment: str
    release_id: str
    rollout_id: str
    sequence: int
    config: Sequence[str]
    actor: Mapping[str, Any] | None
    deployed_at: datetime
    source_env_id: str | None = None
    source_release_id: str | None = None
    previous_release_id: str | None = None
    decision: Json | None = None


@dataclass(frozen=True)
class DecisionFacts:
    """What the policies said of a rollout, in the end: `outcome` is allowed or refused."""

    decision_id: str
    rollout_id: str
    kind: str
    digest: str
    artifact_id: str
    site_id: str
    env_id: str
    outcome: str
    policies: Sequence[Json]
    findings: Sequence[Json]
    approvals: Sequence[Json]
    override: Json | None
    decided_at: datetime


@dataclass(frozen=True)
class PolicyFacts:
    """One version of a policy. `subject` is the environment or the site; `minimum` is that release's artifact:
    `{digest, logIndex}`, None where the document names none.
    """

    policy_id: str
    site_id: str
    subject: str
    version: int
    document: Json
    digest: str
    minimum: Json | None
    actor: Mapping[str, Any] | None
    set_at: datetime


@dataclass(frozen=True)
class FindingFacts:
    """A damaged object and how it ended: `outcome` is mended (by whom) or lost. `name` is its hex digest."""

    finding_id: str
    site_id: str
    object: str
    name: str
    damage: str
    outcome: str
    by: str | None
    found_at: datetime
    settled_at: datetime


@dataclass(frozen=True)
class KeyFacts:
    """What became of a signing key: `event` is introduced, retired or revoked. `since`: from when its work is void."""

    event: str
    hint: str
    at: datetime
    since: datetime | None = None
    reason: str | None = None


def rollout_statement(facts: RolloutFacts) -> bytes:
    """In RFC 8785 form."""
    predicate = {
        "kind": facts.kind,
        "site": facts.site_id,
        "environment": {"id": facts.env_id, "slug": facts.environment},
        "artifact": facts.artifact_id,
        "release": {"id": facts.release_id, "sequence": facts.sequence, "previous": facts.previous_release_id},
        "deployment": facts.rollout_id,
        "source": {"environment": facts.source_env_id, "release": facts.source_release_id},
        "configVersions": list(facts.config),
        "decision": facts.decision,
        "actor": dict(facts.actor) if facts.actor else None,
        "deployedAt": timestamp(facts.deployed_at),
    }
    return _statement("manifest.json", facts.digest, ROLLOUT_TYPE, predicate)


def decision_statement(facts: DecisionFacts) -> bytes:
    predicate = {
        "site": facts.site_id,
        "environment": facts.env_id,
        "artifact": facts.artifact_id,
        "deployment": facts.rollout_id,
        "kind": facts.kind,
        "decidedAt": timestamp(facts.decided_at),
        **decision_of(facts),
    }
    return _statement("manifest.json", facts.digest, DECISION_TYPE, predicate)


def decision_of(facts: DecisionFacts) -> Json:
    """A decision as its own record and that of its rollout have it."""
    return {
        "id": facts.decision_id,
        "outcome": facts.outcome,
        "policies": list(facts.policies),
        "findings": list(facts.findings),
        "approvals": list(facts.approvals),
        "override": facts.override,
    }


def audit_statement(seq: int, chain: str) -> bytes:
    """The audit log up to its link `seq`, whose hash (hex) is `chain`."""
    return _statement("audit log", chain, AUDIT_TYPE, {"seq": seq})


def policy_statement(facts: PolicyFacts) -> bytes:
    predicate = {
        "id": facts.policy_id,
        "site": facts.site_id,
        "subject": facts.subject,
        "version": facts.version,
        "document": facts.document,
        "minimum": facts.minimum,
        "actor": dict(facts.actor) if facts.actor else None,
        "setAt": timestamp(facts.set_at),
    }
    return _statement("policy", facts.digest, POLICY_TYPE, predicate)


def finding_statement(facts: FindingFacts) -> bytes:
    predicate = {
        "finding": facts.finding_id,
        "site": facts.site_id,
        "object": facts.object,
        "damage": facts.damage,
        "outcome": facts.outcome,
        "mendedBy": facts.by,
        "foundAt": timestamp(facts.found_at),
        "settledAt": timestamp(facts.settled_at),
    }
    return _statement(facts.object, facts.name, INTEGRITY_TYPE, predicate)


def key_statement(facts: KeyFacts) -> bytes:
    predicate = {
        "event": facts.event,
        "keyHint": facts.hint,
        "at": timestamp(facts.at),
        "voidSince": timestamp(facts.since) if facts.since else None,
        "reason": facts.reason,
    }
    return _statement("signing key", base64.b64decode(facts.hint).hex(), KEY_TYPE, predicate)


def _statement(name: str, sha256: str, predicate_type: str, predicate: Json) -> bytes:
    document = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": sha256}}],
        "predicateType": predicate_type,
        "predicate": predicate,
    }
    try:
        return rfc8785.dumps(document)  # type: ignore[arg-type]
    except rfc8785.CanonicalizationError as error:
        raise HeadwayError("sign.failed", "The record has no canonical form.") from error
