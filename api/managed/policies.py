"""Policies of sites and environments, what was decided of a deployment, approvals and breaking the glass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from sqlmodel import Session
from starlette.responses import Response

from api.idempotency import Once, Replay
from api.managed.call import Call, CallDep, KeyedDep, PagingDep
from api.managed.documents import gives, lists
from api.managed.environments import E, env_to_change, env_to_read
from api.managed.policy_schemas import ApprovalRow, Approve, BreakGlass, DecisionRow, PolicyRow
from api.managed.sites import site_to_change, site_to_read
from api.scopes import ROLES
from api.starting import ring
from headway.errors import HeadwayError
from headway.policy import PolicyDocument
from store import approvals, policies, rollouts
from store.events import stamp
from store.labels import bell_of
from store.models import Environment, Rollout, Site
from store.models_policy import Approval, Decision, Policy
from store.paging import Page
from store.policy_names import check_names
from temporal.messages import Ahead

router = APIRouter(tags=["policies"])
Json = dict[str, Any]
READ, WRITE = "deployments:read", "deployments:write"
# Owners and admins: who may deploy may not change what deployments are held to.
RULE = "sites:write"
DEPLOYING = frozenset(role for role, scopes in ROLES.items() if WRITE in scopes)
S, D = "/sites/{site_id}", E + "/deployments/{deployment_id}"


@router.get(S + "/policy", **gives(PolicyRow, "The policy of all environments of a site"))
async def get_site_policy(call: CallDep, site_id: str) -> Response:
    def work(session: Session) -> Json:
        site = site_to_read(call, session, site_id)
        return policy_row(site, None, policies.current_policy(session, site.id))

    return call.one(await call.read(work))


@router.put(S + "/policy", **gives(PolicyRow, "Set the policy of all environments of a site; {} is none"))
async def set_site_policy(call: CallDep, site_id: str, body: PolicyDocument) -> Response:
    def work(session: Session) -> tuple[Json, list[Ahead]]:
        site = site_to_change(call, session, site_id, RULE)
        check_names(session, site, body, DEPLOYING)
        made = policies.set_policy(session, site, None, body, call.caller.actor)
        return policy_row(site, None, made), _bells(session, site.id, None)

    return await _changed(call, work)


@router.get(S + "/policy/versions", **lists(PolicyRow, "Every version of a site's policy"))
async def list_site_policies(call: CallDep, paging: PagingDep, site_id: str) -> Response:
    def fetch(session: Session, page: Page) -> tuple[Sequence[Policy], bool]:
        site = site_to_read(call, session, site_id)
        return policies.list_policies(session, site.id, page)

    return await call.page(paging, fetch, _version_row)


@router.get(E + "/policy", **gives(PolicyRow, "The policy of an environment; its site's holds beside it"))
async def get_policy(call: CallDep, site_id: str, env_id: str) -> Response:
    def work(session: Session) -> Json:
        site, environment = env_to_read(call, session, site_id, env_id)
        return policy_row(site, environment, policies.current_policy(session, environment.id))

    return call.one(await call.read(work))


@router.put(E + "/policy", **gives(PolicyRow, "Set the policy of an environment; {} is none"))
async def set_policy(call: CallDep, site_id: str, env_id: str, body: PolicyDocument) -> Response:
    def work(session: Session) -> tuple[Json, list[Ahead]]:
        site, environment = env_to_change(call, session, site_id, env_id, RULE)
        check_names(session, site, body, DEPLOYING)
        made = policies.set_policy(session, site, environment, body, call.caller.actor)
        return policy_row(site, environment, made), _bells(session, site.id, environment.id)

    return await _changed(call, work)


@router.get(E + "/policy/versions", **lists(PolicyRow, "Every version of an environment's policy"))
async def list_policies(call: CallDep, paging: PagingDep, site_id: str, env_id: str) -> Response:
    def fetch(session: Session, page: Page) -> tuple[Sequence[Policy], bool]:
        _, environment = env_to_read(call, session, site_id, env_id)
        return policies.list_policies(session, environment.id, page)

    return await call.page(paging, fetch, _version_row)


@router.get(D + "/decision", **gives(DecisionRow, "What the policy says of a deployment, and why"))
async def get_decision(call: CallDep, site_id: str, env_id: str, deployment_id: str) -> Response:
    def work(session: Session) -> Json:
        _, environment = env_to_read(call, session, site_id, env_id, READ)
        rollout = rollouts.rollout_of(session, environment.id, deployment_id)
        found = policies.decision_of(session, rollout.id)
        if found is None:
            message = f"No policy has spoken about the deployment {rollout.id}."
            raise HeadwayError("decision.not_found", message, param="deployment_id")
        return decision_row(session, found)

    return call.one(await call.read(work))


@router.post(D + "/approvals", **gives(ApprovalRow, "Approve a held deployment", status=201))
async def approve(
    call: KeyedDep, site_id: str, env_id: str, deployment_id: str, body: Approve | None = None
) -> Response:
    def work(session: Session, rollout: Rollout) -> Json:
        note = body.note if body is not None else None
        return approval_row(approvals.approve(session, rollout, call.caller.account_id, call.caller.actor, note))

    return await _spoken(call, site_id, env_id, deployment_id, body, work)


@router.post(D + "/break-glass", **gives(DecisionRow, "Let a held deployment through, for a reason", status=201))
async def break_glass(call: KeyedDep, site_id: str, env_id: str, deployment_id: str, body: BreakGlass) -> Response:
    def work(session: Session, rollout: Rollout) -> Json:
        caller = call.caller
        decision = approvals.break_glass(
            session, rollout, caller.account_id, caller.actor, body.reason, admin=caller.may(RULE)
        )
        return decision_row(session, decision)

    return await _spoken(call, site_id, env_id, deployment_id, body, work)


async def _spoken(
    call: Call, site_id: str, env_id: str, deployment_id: str, body: Approve | BreakGlass | None, work: Any
) -> Response:
    """A word about a held deployment, kept, and its run told."""
    once: Once = call.once(body)

    def keep(session: Session) -> tuple[Json, list[Ahead]]:
        _, environment = env_to_change(call, session, site_id, env_id, WRITE)
        rollout = rollouts.rollout_of(session, environment.id, deployment_id)
        once.claim(session)
        row = work(session, rollout)
        once.keep(session, 201, body=row)
        return row, [bell_of(session, rollout)]

    try:
        row, bells = await call.write(keep)
    except Replay as replay:
        return call.one(replay.body, 201, {"Idempotent-Replayed": "true"})
    await ring(call.parts.starts, bells)
    return call.one(row, 201)


async def _changed(call: Call, work: Any) -> Response:
    row, bells = await call.write(work)
    await ring(call.parts.starts, bells)
    return call.one(row)


def _bells(session: Session, site_id: str, env_id: str | None) -> list[Ahead]:
    return [bell_of(session, rollout) for rollout in approvals.held_in(session, site_id, env_id)]


def policy_row(site: Site, environment: Environment | None, policy: Policy | None) -> Json:
    if policy is not None:
        return _version_row(policy)
    none: Json = {"id": None, "version": 0, "document": {}, "digest": None, "actor": None, "created_at": None}
    return {**none, "site_id": site.id, "env_id": environment.id if environment is not None else None}


def _version_row(policy: Policy) -> Json:
    return {
        "id": policy.id,
        "site_id": policy.site_id,
        "env_id": policy.env_id,
        "version": policy.version,
        "document": policy.document,
        "digest": policy.digest,
        "actor": policy.actor,
        "created_at": stamp(policy.created_at),
    }


def approval_row(approval: Approval) -> Json:
    return {
        "id": approval.id,
        "deployment_id": approval.rollout_id,
        "artifact_id": approval.artifact_id,
        "account_id": approval.account_id,
        "actor": approval.actor,
        "note": approval.note,
        "given_at": stamp(approval.given_at),
    }


def decision_row(session: Session, decision: Decision) -> Json:
    given = [approval_row(one) for one in policies.approvals_of(session, decision.rollout_id)]
    return {**outcome_row(decision), "given": given}


def outcome_row(decision: Decision) -> Json:
    return {
        "id": decision.id,
        "deployment_id": decision.rollout_id,
        "site_id": decision.site_id,
        "env_id": decision.env_id,
        "artifact_id": decision.artifact_id,
        "outcome": decision.outcome,
        "policies": decision.policies,
        "findings": decision.findings,
        "approvals": decision.approvals,
        "override": decision.override,
        "judged_at": stamp(decision.judged_at),
        "decided_at": stamp(decision.decided_at),
        "log_index": decision.log_index,
    }
