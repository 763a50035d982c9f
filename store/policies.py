"""Policies and decisions: versions of documents, and what they say of a rollout now.

A rollout is judged in the transaction in which it would be taken, under its environment's lock: what was decided is
what was carried out. `headway.policy` has the rules; here are the rows that they are about.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import bindparam, func
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from headway.ids import new_id
from headway.policy import (
    JUDGED,
    Facts,
    Finding,
    Given,
    PolicyDocument,
    Provenance,
    Ruled,
    Verdict,
    digest_of,
    judge,
    parse_policy,
)
from store.models import Account, ApiKey, Artifact, Build, Environment, Release, Rollout, Site, utcnow
from store.models_ledger import LedgerEntry
from store.models_policy import Approval, Decision, Policy
from store.paging import Page, fetch_page

Json = dict[str, Any]
BUILDS_READ: Final = 100
CHAIN: Final = 50
ABOUT_THEN: Final = timedelta(seconds=5)
_OTHER = aliased(Policy)
_LAST = select(func.max(_OTHER.version)).where(_OTHER.subject_id == Policy.subject_id)
_OF_BOTH = select(Policy).where(col(Policy.subject_id).in_((bindparam("site_id"), bindparam("env_id"))))
_STANDING: Final = _OF_BOTH.where(Policy.version == _LAST.scalar_subquery())
_ENTERED: Final = _OF_BOTH.where(Policy.version == _LAST.where(col(_OTHER.log_index).is_not(None)).scalar_subquery())
_NEWEST: Final = (
    select(Policy).where(Policy.subject_id == bindparam("subject_id")).order_by(col(Policy.version).desc()).limit(1)
)
_DECISION: Final = select(Decision).where(Decision.rollout_id == bindparam("rollout_id"))


def current_policy(session: Session, subject_id: str) -> Policy | None:
    """The newest version of a site's or an environment's policy; None where there never was one."""
    return session.exec(_NEWEST, params={"subject_id": subject_id}).first()


def list_policies(session: Session, subject_id: str, page: Page) -> tuple[Sequence[Policy], bool]:
    query = select(Policy).where(Policy.subject_id == subject_id)
    return fetch_page(session, query, page, time=Policy.created_at, id=Policy.id)


def set_policy(
    session: Session, site: Site, environment: Environment | None, document: PolicyDocument, actor: Json
) -> Policy:
    """The next version, unless the newest says the same. Raises release.not_found for an unknown minimum release."""
    if document.minimum_release is not None:
        release = session.get(Release, document.minimum_release)
        if release is None or release.site_id != site.id:
            message = f"This site has no release {document.minimum_release}."
            raise HeadwayError("release.not_found", message, param="minimum_release")
    subject_id = environment.id if environment is not None else site.id
    given = document.canonical()
    standing = current_policy(session, subject_id)
    if standing is not None and standing.document == given:
        return standing
    made = Policy(
        id=new_id("pol"),
        site_id=site.id,
        env_id=environment.id if environment is not None else None,
        subject_id=subject_id,
        version=standing.version + 1 if standing is not None else 1,
        document=given,
        digest=digest_of(given),
        actor=actor,
    )
    session.add(made)
    session.flush()
    return made


def effective(session: Session, site_id: str, env_id: str) -> list[Policy]:
    """The site's and the environment's, newest versions, those that say anything. Both hold."""
    return [one for one in _standing(session, site_id, env_id) if one.document]


def _standing(session: Session, site_id: str, env_id: str, *, entered: bool = False) -> list[Policy]:
    """The newest version of each, or the newest that is in the ledger; the site's first."""
    asked = session.exec(_ENTERED if entered else _STANDING, params={"site_id": site_id, "env_id": env_id})
    found = {row.subject_id: row for row in asked}
    return [found[subject] for subject in (site_id, env_id) if subject in found]


def decision_of(session: Session, rollout_id: str) -> Decision | None:
    return session.exec(_DECISION, params={"rollout_id": rollout_id}).first()


def decide(session: Session, environment: Environment, rollout: Rollout, policies: Sequence[Policy]) -> Decision | None:
    """Judge a rollout that has its artifact, and keep what came of it. None: policies are not about this kind.

    The environment's row is locked.
    """
    if rollout.kind not in JUDGED or rollout.artifact_id is None:
        return None
    decision = decision_of(session, rollout.id) or Decision(
        id="dec_" + rollout.id.split("_", 1)[1],
        rollout_id=rollout.id,
        site_id=rollout.site_id,
        env_id=rollout.env_id,
        artifact_id=rollout.artifact_id,
        outcome="held",
    )
    ruled = [_ruled(session, policy) for policy in policies]
    verdict = judge(ruled, _facts(session, environment, rollout, ruled), utcnow())
    decision.policies = [_named(policy) for policy in policies]
    _keep(session, decision, verdict)
    session.add(decision)
    return decision


def _keep(session: Session, decision: Decision, verdict: Verdict) -> None:
    now = utcnow()
    held = () if decision.override is not None else verdict.held
    decision.outcome = "refused" if verdict.refused else "held" if held else "allowed"
    # What somebody broke the glass over stays on the record.
    decision.findings = [one.as_dict() for one in (*verdict.refused, *verdict.held)]
    decision.approvals = [
        _approval(one) for one in approvals_of(session, decision.rollout_id) if one.account_id in verdict.approved_by
    ]
    decision.judged_at = now
    decision.decided_at = now if decision.outcome == "refused" else None


def conclude(session: Session, rollout: Rollout) -> None:
    """The rollout is carried out from now on: what was decided last is what was decided."""
    if (decision := decision_of(session, rollout.id)) is not None:
        decision.decided_at = utcnow()


def judge_again(session: Session, decision: Decision, rollout: Rollout) -> Verdict:
    """What the signing worker finds of a final decision, by the versions that stood then. Pins are no part of it."""
    environment, at = session.get_one(Environment, decision.env_id), decision.decided_at or decision.judged_at
    named = {one["id"] for one in decision.policies}
    stood = [_stood(session, subject, at, named) for subject in (decision.site_id, decision.env_id)]
    ruled = [_ruled(session, row) for row in stood if row is not None and row.document]
    verdict = judge(ruled, replace(_facts(session, environment, rollout, ruled), pinned=None), at)
    if named != {one.id for one in ruled}:
        other = Finding("policies", "It was not held to the policies that stood.")
        return replace(verdict, refused=(*verdict.refused, other))
    return replace(verdict, held=()) if decision.override is not None else verdict


def _stood(session: Session, subject_id: str, at: datetime, named: set[str]) -> Policy | None:
    """The version that stood at that moment; or one that stood about then, where a decision names that, or none: a
    row's time is older than its commit, and machines' clocks differ.
    """
    query = select(Policy).where(Policy.subject_id == subject_id, col(Policy.created_at) <= at + ABOUT_THEN)
    versions: list[Policy | None] = [None, *session.exec(query.order_by(col(Policy.version)))]
    began = [one.created_at if one is not None else None for one in versions]
    ended = [*began[1:], None]
    about = [one for one, end in zip(versions, ended, strict=True) if end is None or end > at - ABOUT_THEN]
    then = [one for one, start in zip(versions, began, strict=True) if start is None or start <= at]
    told = [one for one in about if one is not None and one.id in named]
    silent = [one for one in about if one is None or not one.document]
    return (told or silent or then)[-1]


def shown_to_hosts(session: Session, rollout: Rollout) -> tuple[list[Policy], Decision | None]:
    """The policies that a rollout is held to, and what was decided of it.

    What goes back, or on with what is there, waits for no ledger: it is shown the newest that are entered.
    """
    brings = rollout.kind in ("deploy", "promote")
    newest = _standing(session, rollout.site_id, rollout.env_id, entered=not brings)
    decision = decision_of(session, rollout.id) if newest and rollout.kind in JUDGED else None
    if not brings:
        return newest, decision
    if decision is None:
        # Taken while no policy said anything: one that was set since is for the next.
        began = rollout.started_at or utcnow()
        stood = [_stood(session, one.subject_id, began, set()) for one in newest]
        return [one for one in stood if one is not None], None
    named = session.exec(select(Policy).where(col(Policy.id).in_([one["id"] for one in decision.policies]))).all()
    held_to = {one.subject_id for one in named}
    # One that says nothing by now is not named by a decision, and yet a host has to hear of it.
    silent = [one for one in newest if one.subject_id not in held_to and not one.document]
    return [*named, *silent], decision


def allowed_before(session: Session, env_id: str, artifact_id: str) -> Decision | None:
    """The newest decision that allowed an artifact on an environment and is in the ledger."""
    query = select(Decision).where(
        Decision.env_id == env_id,
        Decision.artifact_id == artifact_id,
        Decision.outcome == "allowed",
        col(Decision.log_index).is_not(None),
    )
    return session.exec(query.order_by(col(Decision.decided_at).desc()).limit(1)).first()


def minimum_of(session: Session, policy: Policy) -> Json | None:
    """The artifact of the minimum release that a policy names, as its record says it."""
    named = policy.document.get("minimum_release")
    release = session.get(Release, named) if named else None
    artifact = session.get(Artifact, release.artifact_id) if release is not None else None
    return {"digest": artifact.digest, "logIndex": artifact.log_index} if artifact is not None else None


def waits_for(decision: Decision) -> Json:
    """What the job of a held rollout says."""
    return {"decision_id": decision.id, "deployment_id": decision.rollout_id, "reasons": decision.findings}


def refusal(decision: Decision) -> Json:
    """The error of a refused rollout."""
    reasons = " ".join(str(finding["message"]) for finding in decision.findings)
    return {"code": "policy.refused", "message": f"The policy refuses it: {reasons}", "decision_id": decision.id}


def _ruled(session: Session, policy: Policy) -> Ruled:
    document = parse_policy(policy.document)
    release = session.get(Release, document.minimum_release) if document.minimum_release else None
    artifact = session.get(Artifact, release.artifact_id) if release is not None else None
    return Ruled(policy.id, document, artifact.created_at if artifact is not None else None)


def _named(policy: Policy) -> Json:
    of = "environment" if policy.env_id is not None else "site"
    return {"id": policy.id, "version": policy.version, "digest": policy.digest, "of": of}


def _facts(session: Session, environment: Environment, rollout: Rollout, ruled: Sequence[Ruled]) -> Facts:
    artifact = session.get_one(Artifact, rollout.artifact_id)
    rules = [one.document for one in ruled]
    sources = any(rule.builders is not None or rule.repositories is not None or rule.refs is not None for rule in rules)
    builds = _builds(session, artifact, rollout)
    asked = _account(session, rollout.actor)
    own = [build for build in builds if build.id in (rollout.build_id, artifact.build_id)]
    authors = {asked, *(_account(session, build.actor) for build in own)}
    return Facts(
        kind=rollout.kind,
        provenance=[_provenance(session, build) for build in builds] if sources else (),
        origin=_origin(session, rollout),
        built_at=artifact.created_at,
        actor=_names(session, asked) | {str((rollout.actor or {}).get(name)) for name in ("id", "type")},
        authors=frozenset(one for one in authors if one is not None),
        approvals=[
            Given(one.account_id, _names(session, one.account_id), one.given_at)
            for one in approvals_of(session, rollout.id)
            if one.artifact_id == artifact.id
        ],
        pinned=str(environment.pin.get("reason") or "") if environment.pin is not None else None,
    )


def _builds(session: Session, artifact: Artifact, rollout: Rollout) -> Sequence[Build]:
    """Those that made these bytes; the rollout's own first, or else the one that the artifact's statement names."""
    query = select(Build).where(Build.artifact_id == artifact.id).order_by(col(Build.created_at).desc())
    found = session.exec(query.limit(BUILDS_READ)).all()
    first = (rollout.build_id, artifact.build_id)
    named = [build for build in (session.get(Build, one) for one in first if one) if build is not None]
    return list({build.id: build for build in (*named, *found) if build.artifact_id == artifact.id}.values())


def _provenance(session: Session, build: Build) -> Provenance:
    """By the signed statement, where this build has one of its own; bytes that were known already are signed once."""
    entry = session.exec(select(LedgerEntry).where(LedgerEntry.subject == f"build:{build.id}")).first()
    if entry is not None:
        predicate = json.loads(base64.b64decode(json.loads(entry.envelope)["payload"]))["predicate"]
        source = predicate["buildDefinition"]["externalParameters"]["source"]
        return Provenance(predicate["runDetails"]["builder"]["id"], source["uri"], source["ref"])
    site = session.get_one(Site, build.site_id)
    signed = session.exec(
        select(LedgerEntry)
        .join(Artifact, col(Artifact.log_index) == LedgerEntry.index)
        .where(Artifact.id == build.artifact_id)
    ).first()
    builder = ""
    if signed is not None:
        statement = json.loads(base64.b64decode(json.loads(signed.envelope)["payload"]))
        builder = str(statement["predicate"].get("runDetails", {}).get("builder", {}).get("id", ""))
    frozen = f"snapshot:{build.source.get('sandbox_id')}" if build.source is not None else None
    return Provenance(builder, frozen or site.repository or f"hosted:{site.id}", build.ref)


def _origin(session: Session, rollout: Rollout) -> frozenset[str]:
    """The environment that it was promoted from, by slug, kind and id: of a rollback what its release came from."""
    found: Rollout | None = rollout
    for _ in range(CHAIN):
        if found is None or found.kind in ("deploy", "promote"):
            break
        release = session.get(Release, found.source_release_id) if found.source_release_id else None
        found = session.get(Rollout, release.rollout_id) if release is not None else None
    source = session.get(Environment, found.source_env_id) if found is not None and found.source_env_id else None
    return frozenset((source.slug, source.kind, source.id)) if source is not None else frozenset()


def _account(session: Session, actor: Json | None) -> str | None:
    """Whose key it was; None for a service token and for what no key asked for."""
    key = session.get(ApiKey, str(actor["id"])) if actor and actor.get("type") == "api_key" else None
    return key.account_id if key is not None and key.kind != "service" else None


def _names(session: Session, account_id: str | None) -> frozenset[str]:
    account = session.get(Account, account_id) if account_id is not None else None
    return frozenset(one for one in (account.id, account.email) if one) if account is not None else frozenset()


def approvals_of(session: Session, rollout_id: str) -> Sequence[Approval]:
    query = select(Approval).where(Approval.rollout_id == rollout_id)
    return session.exec(query.order_by(col(Approval.given_at), col(Approval.id))).all()


def _approval(given: Approval) -> Json:
    at = given.given_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"account_id": given.account_id, "actor": given.actor, "at": at}
