"""Whom a policy names: each has to be somebody who can do there what the policy wants of them.

A name that nobody has would hold deployments for ever, or refuse them all; so it is refused when the policy is set. Who
leaves the team later stays named, and may do nothing any more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from sqlmodel import Session

from headway.errors import HeadwayError
from headway.policy import PolicyDocument
from store.accounts import account_by_email
from store.models import Account, ApiKey, Membership, Site
from store.models_webhooks import ForgeHook
from store.projects import projects_of_member

# Kinds of actors of what policies judge (store/polling.py, store/forges.py, api/auth.py).
KINDS: Final = ("api_key", "forge_hook", "poll")


def check_names(session: Session, site: Site, document: PolicyDocument, deploys: Collection[str]) -> None:
    """`deploys`: the roles that may deploy. Raises policy.invalid with the field, and who of it is nobody."""
    rule = document.approvals
    fields = {
        "approvals.accounts": rule.accounts if rule is not None else (),
        "break_glass": document.break_glass or (),
        "actors": [name for name in document.actors or () if name not in KINDS],
    }
    for field, names in fields.items():
        wrong = list(_wrong(session, site, names, deploys, keys=field == "actors"))
        if wrong:
            raise HeadwayError("policy.invalid", f"{field}: {'; '.join(wrong)}.", param=field)
    if rule is not None and len({_account(session, name) for name in rule.accounts}) < rule.needed:
        message = f"approvals.accounts: {rule.needed} approvals need as many people: some of these names are one's."
        raise HeadwayError("policy.invalid", message, param="approvals.accounts")


def _wrong(
    session: Session, site: Site, names: Collection[str], deploys: Collection[str], *, keys: bool
) -> Iterator[str]:
    for name in dict.fromkeys(names):
        if keys and name.startswith(("key_", "hook_")):
            if not _of_site(session, site, name):
                yield f"this team has no {'key' if name.startswith('key_') else 'hook of this site'} {name}"
        elif (why := _why_not(session, site, _account(session, name), deploys)) is not None:
            yield f"{name} {why}"


def _account(session: Session, name: str) -> str | None:
    """The account of that id or e-mail address."""
    found = account_by_email(session, name) if "@" in name else session.get(Account, name)
    return found.id if found is not None else None


def _why_not(session: Session, site: Site, account_id: str | None, deploys: Collection[str]) -> str | None:
    """None: it can. Whether an account of others has that name is nobody's business."""
    account = session.get(Account, account_id) if account_id is not None else None
    if account is not None and account.operator:
        return None
    member = session.get(Membership, (site.team_id, account.id)) if account is not None else None
    if member is None:
        return "is no member of this team"
    if member.role not in deploys:
        return f"has the role {member.role}, which may not deploy"
    within = projects_of_member(session, site.team_id, member.account_id)
    return "is limited to other projects" if within is not None and site.project_id not in within else None


def _of_site(session: Session, site: Site, name: str) -> bool:
    if name.startswith("hook_"):
        hook = session.get(ForgeHook, name)
        return hook is not None and hook.site_id == site.id
    key = session.get(ApiKey, name)
    return key is not None and key.revoked_at is None and (key.team_id == site.team_id or key.kind == "operator")
