"""Hosts: the signed records by which they judge themselves whether a rollout may be."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlmodel import Session

from adapters.ledger import tree
from adapters.ledger.bundles import bundle_of
from adapters.ledger.entry import Logged, entry_of, item
from adapters.ledger.note import Checkpoint
from adapters.ledger.root import parse_root
from headway.policy import JUDGED
from store import ledger
from store.models import Environment, Release, Rollout
from store.policies import allowed_before, shown_to_hosts


@dataclass(frozen=True)
class Admission:
    """As `headway.broker.RollSpec` has them."""

    policies: list[str] = field(default_factory=list)
    proof: str = ""
    awaited: bool = False


def admission_of(session: Session, rollout: Rollout) -> Admission:
    """Nothing where there never was a policy."""
    policies, decision = shown_to_hosts(session, rollout)
    if not policies:
        return Admission()
    entered = [one.log_index for one in policies if one.log_index is not None]
    behind = decision.log_index if decision is not None else None
    if rollout.kind not in JUDGED:
        behind = _runs_by(session, rollout)
    missing = len(entered) < len(policies) or (decision is not None and behind is None)
    proof = _bundle(session, behind) if behind is not None else ""
    return Admission([_bundle(session, index) for index in entered], proof, missing)


def _runs_by(session: Session, rollout: Rollout) -> int | None:
    """Why what runs there may: the decision that allowed it, or, where there was no policy then, its release."""
    allowed = allowed_before(session, rollout.env_id, rollout.artifact_id or "")
    if allowed is not None:
        return allowed.log_index
    environment = session.get(Environment, rollout.env_id)
    release = session.get(Release, environment.active_release_id) if environment is not None else None
    return release.log_index if release is not None and release.artifact_id == rollout.artifact_id else None


def _bundle(session: Session, index: int) -> str:
    """An entry, proven against the newest checkpoint."""
    row, head = ledger.entry(session, index), ledger.open_head(session)
    root = ledger.document(session, "trusted_root")
    assert root is not None  # noqa: S101 - it is published with the first entry
    proof = tree.inclusion_proof(lambda wanted: ledger.nodes(session, wanted), index, head.size)
    logged = Logged(row.index, row.at, row.body, row.promise)
    given = item(logged, parse_root(root.body).log, head.note, Checkpoint(head.size, head.root), proof)
    return bundle_of(entry_of(row.body, row.envelope), given).decode()
