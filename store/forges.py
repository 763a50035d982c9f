"""Hooks of forges: what became of each call. A pushed branch goes where the site's routes lead it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import delete, func, update
from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from headway.ids import new_id
from store.arrivals import ACCEPTED, IGNORED, REFUSED, Arrival, Judged, accept
from store.config_values import Hides, Opens
from store.models import Site, utcnow
from store.models_arrivals import RemoteBranch
from store.models_webhooks import ForgeCall, ForgeHook
from store.paging import Page, fetch_page
from store.pushes import Previews
from store.reports import look_again
from store.slugs import is_branch_name
from store.webhooks import new_secret, preview_of

Json = dict[str, Any]
MAX_HOOKS: Final = 10


@dataclass(frozen=True)
class Pushed:
    """A genuine call. `branch` None: it is about something else, `ref`, or no ref at all."""

    call_id: str
    event: str
    branch: str | None
    commit: str | None
    deleted: bool = False
    ref: str | None = None
    before: str | None = None
    opened: str | None = None


def create_hook(session: Session, vault: Hides, site: Site, provider: str, actor: Json) -> tuple[ForgeHook, str]:
    """The hook and its secret, which is not shown again. Raises quota.exceeded and config.unreadable."""
    of_site = select(func.count()).select_from(ForgeHook).where(col(ForgeHook.site_id) == site.id)
    if session.execute(of_site).scalar_one() >= MAX_HOOKS:
        raise HeadwayError("quota.exceeded", f"A site has at most {MAX_HOOKS} hooks.")
    id, secret = new_id("hook"), new_secret()
    # Comes behind a rotation that holds the table, or holds one up: see store.config_keys.
    session.get(ForgeHook, id, with_for_update=True)
    hidden = vault.hide(secret, bound_to(id))
    made = ForgeHook(
        id=id,
        team_id=site.team_id,
        site_id=site.id,
        provider=provider,
        ciphertext=hidden.ciphertext,
        wrapped_key=hidden.wrapped_key,
        key_id=hidden.key_id,
        preview=preview_of(secret),
        actor=actor,
    )
    session.add(made)
    session.flush()
    return made, secret


def secret_of(vault: Opens, hook: ForgeHook) -> str:
    """Raises config.unreadable."""
    return vault.open(hook.ciphertext, hook.wrapped_key, hook.key_id, bound_to(hook.id))


def bound_to(hook_id: str) -> str:
    return f"forge hook {hook_id}"


def hook(session: Session, id: str, site_id: str | None = None, *, lock: bool = False) -> ForgeHook:
    """Raises forge_hook.not_found."""
    found = session.get(ForgeHook, id, with_for_update=lock or None)
    if found is None or (site_id is not None and found.site_id != site_id):
        raise HeadwayError("forge_hook.not_found", f"There is no hook {id}.", param="hook_id")
    return found


def list_hooks(session: Session, site_id: str, page: Page) -> tuple[Sequence[ForgeHook], bool]:
    query = select(ForgeHook).where(ForgeHook.site_id == site_id)
    return fetch_page(session, query, page, time=ForgeHook.created_at, id=ForgeHook.id)


def list_calls(session: Session, hook_id: str, page: Page) -> tuple[Sequence[ForgeCall], bool]:
    query = select(ForgeCall).where(ForgeCall.hook_id == hook_id)
    return fetch_page(session, query, page, time=ForgeCall.created_at, id=ForgeCall.id)


def delete_hook(session: Session, hook: ForgeHook) -> None:
    session.execute(delete(ForgeCall).where(col(ForgeCall.hook_id) == hook.id))
    session.delete(hook)


def forget_calls(session: Session, before: datetime) -> None:
    """Calls that are older: forges repeat theirs within days."""
    session.execute(delete(ForgeCall).where(col(ForgeCall.created_at) < before))


def note_forged(session: Session, hook_id: str, count: int = 1) -> None:
    """Counted, not kept: whoever can make them can make many."""
    session.execute(
        update(ForgeHook)
        .where(col(ForgeHook.id) == hook_id)
        .values(forged=col(ForgeHook.forged) + count, forged_at=utcnow())
    )


def take_call(
    session: Session, hook_id: str, pushed: Pushed, domain: str, previews: Previews
) -> tuple[ForgeCall, Judged | None]:
    """The verdict on a call, and what follows from one that is judged now. A call that is repeated has its first one.

    Concurrent copies wait for each other at the hook's row. A call that was refused may be repeated.
    """
    found = hook(session, hook_id, lock=True)
    known = session.exec(
        select(ForgeCall).where(ForgeCall.hook_id == hook_id, ForgeCall.call_id == pushed.call_id)
    ).first()
    if known is not None and known.verdict != REFUSED:
        known.repeats += 1
        return known, None
    call = known or ForgeCall(
        id=new_id("call"), hook_id=hook_id, call_id=pushed.call_id, event=pushed.event, verdict=IGNORED
    )
    judged = _judge(session, found, pushed, domain, previews)
    call.ref, call.commit_sha, call.before_sha = pushed.branch or pushed.ref, pushed.commit, pushed.before
    call.verdict, call.reason = judged.verdict, judged.reason
    call.job_id = judged.job.id if judged.job is not None else None
    session.add(call)
    session.flush()
    return call, judged


def _judge(session: Session, hook: ForgeHook, pushed: Pushed, domain: str, previews: Previews) -> Judged:
    """A branch goes by the site's routes, as a `git push` of it would; nothing else is deployed."""
    if pushed.branch is not None:
        if pushed.commit is None and not pushed.deleted:
            return Judged(REFUSED, "the call names no commit")
        if _is_late(session, hook, pushed):
            return Judged(IGNORED, "a later push of the branch was told of already")
        actor = {"type": "forge_hook", "id": hook.id, "label": hook.provider}
        arrival = Arrival(pushed.branch, pushed.commit, "webhook", actor)
        return accept(session, session.get_one(Site, hook.site_id), arrival, domain, previews)
    if pushed.opened is not None:
        told = is_branch_name(pushed.opened) and look_again(session, hook.site_id, pushed.opened)
        what = "its comment is on its way" if told else "no preview of it is known yet"
        return Judged(IGNORED, f"a pull request was opened: {what}")
    if pushed.ref is None:
        return Judged(IGNORED, f"{pushed.event or 'this'} is no push to a branch")
    tag = pushed.ref.removeprefix("refs/tags/")
    if not pushed.ref.startswith("refs/") or not is_branch_name(tag) or not tag.isprintable():
        return Judged(REFUSED, "that is no name of a ref")
    return Judged(IGNORED, f"{tag} is a tag: tags deploy nothing" if tag != pushed.ref else f"{tag} is no branch")


def _is_late(session: Session, hook: ForgeHook, pushed: Pushed) -> bool:
    """Whether a push that goes on from this commit was told of before it, and this one does not go back to it."""
    heard = session.get(RemoteBranch, (hook.site_id, pushed.branch))
    if heard is None or pushed.before is None or heard.commit_sha in (pushed.before, pushed.commit):
        return False
    after = (
        select(ForgeCall.id)
        .join(ForgeHook, col(ForgeHook.id) == col(ForgeCall.hook_id))
        .where(
            ForgeHook.site_id == hook.site_id,
            ForgeCall.ref == pushed.branch,
            ForgeCall.before_sha == pushed.commit,
            ForgeCall.verdict == ACCEPTED,
        )
    )
    return pushed.commit is not None and session.exec(after.limit(1)).first() is not None
