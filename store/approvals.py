"""What people say of a held rollout: approvals, and breaking the glass. Each is a row; the run is told to look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from headway.ids import new_id
from headway.policy import PolicyDocument, parse_policy
from store.models import Account, Environment, Rollout, utcnow
from store.models_policy import Approval, Decision
from store.policies import decision_of, effective

Json = dict[str, Any]


def approve(session: Session, rollout: Rollout, account_id: str | None, actor: Json, note: str | None) -> Approval:
    """One account's approval, given or renewed. Raises approval.not_held and approval.not_named."""
    decision = _held(session, rollout)
    documents = _documents(session, rollout)
    account = _person(session, account_id)
    names = {account.id, account.email}
    rules = [one.approvals for one in documents if one.approvals is not None and names & set(one.approvals.accounts)]
    if not rules:
        raise HeadwayError("approval.not_named", "No policy there names this account among those who approve.")
    known = session.exec(
        select(Approval).where(Approval.rollout_id == rollout.id, Approval.account_id == account.id)
    ).first()
    made = known or Approval(
        id=new_id("apr"), rollout_id=rollout.id, artifact_id=decision.artifact_id, account_id=account.id
    )
    made.actor, made.note, made.given_at = actor, note, utcnow()
    session.add(made)
    session.flush()
    return made


def break_glass(
    session: Session, rollout: Rollout, account_id: str | None, actor: Json, reason: str, *, admin: bool
) -> Decision:
    """Let a held rollout through, whatever holds it; what is refused stays so.

    `admin`: whether the caller may change policies: that is enough where none of them names who may.
    Raises approval.not_held and approval.not_named.
    """
    decision = _held(session, rollout)
    account = _person(session, account_id)
    lists = [one.break_glass for one in _documents(session, rollout) if one.break_glass is not None]
    if not all({account.id, account.email} & set(names) for names in lists) or (not lists and not admin):
        raise HeadwayError("approval.not_named", "This account may not let a held deployment through.")
    at = utcnow().strftime("%Y-%m-%dT%H:%M:%SZ")
    decision.override = {"account_id": account.id, "actor": actor, "reason": reason, "at": at}
    session.add(decision)
    session.flush()
    return decision


def held_in(session: Session, site_id: str, env_id: str | None = None) -> Sequence[Rollout]:
    """Held rollouts of a site, or of one of its environments: who has to look again when a rule has changed."""
    query = select(Rollout).where(Rollout.site_id == site_id, Rollout.status == "held")
    if env_id is not None:
        query = query.where(Rollout.env_id == env_id)
    return session.exec(query.order_by(col(Rollout.accept_seq))).all()


def set_pin(environment: Environment, actor: Json | None, reason: str = "") -> None:
    """Hold whatever is new on an environment from now on; without an actor, no longer."""
    at = utcnow().strftime("%Y-%m-%dT%H:%M:%SZ")
    environment.pin = {"reason": reason, "actor": actor, "at": at} if actor is not None else None


def _held(session: Session, rollout: Rollout) -> Decision:
    session.refresh(rollout, with_for_update=True)
    decision = decision_of(session, rollout.id)
    if rollout.status != "held" or decision is None or decision.decided_at is not None:
        raise HeadwayError("approval.not_held", f"The deployment {rollout.id} is {rollout.status}, not held.")
    return decision


def _documents(session: Session, rollout: Rollout) -> list[PolicyDocument]:
    return [parse_policy(policy.document) for policy in effective(session, rollout.site_id, rollout.env_id)]


def _person(session: Session, account_id: str | None) -> Account:
    account = session.get(Account, account_id) if account_id is not None else None
    if account is None:
        raise HeadwayError("approval.not_named", "A service token speaks for nobody: use a person's key.")
    return account
