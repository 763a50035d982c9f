"""Remote repositories of sites: what private ones are read with, how they are polled, what their branches are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter
from pydantic import Field
from sqlmodel import Session
from starlette.responses import Response

from adapters.source.deploy_key import make_deploy_key
from api.idempotency import Once
from api.managed.answers import DeletedRow, Row
from api.managed.call import Call, CallDep, KeyedDep, PagingDep
from api.managed.documents import gives, lists
from api.managed.rows_around import verdict_text
from api.managed.schemas import Body
from api.managed.sites import site_to_change, site_to_read
from headway.errors import HeadwayError
from store import credentials, polling
from store.credentials import DEPLOY_KEY, Credential
from store.events import stamp
from store.models import Site
from store.models_arrivals import RemoteBranch
from store.models_repositories import RepositoryCredential
from store.paging import Page
from store.polling import Watched

router = APIRouter(prefix="/sites/{site_id}/repository", tags=["remote repositories"])
Json = dict[str, Any]
CREDENTIAL: Final = "/credentials/{credential_id}"
# One line: what git's helpers are told is lines.
Token = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[\x21-\x7e]+$")]
Username = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[\x21-\x39\x3b-\x7e]+$")]


class CredentialCreate(Body):
    """A `deploy_key` is made here, for ssh; a `token` is given, for https."""

    kind: Literal["deploy_key", "token"]
    token: Token | None = Field(default=None, description="Write-only.")
    username: Username | None = Field(default=None, description="Where the forge wants a certain one; else `git`.")


class CredentialRotate(Body):
    """A token takes the place of the one before. Of a deploy key another is made, and both are offered."""

    token: Token | None = None
    username: Username | None = None


class CredentialRow(Row):
    """`public_key` is for the forge. `host` is the only one that is ever told; the secret half is never shown."""

    id: str
    site_id: str
    kind: Literal["deploy_key", "token"]
    host: str
    username: str | None
    public_key: str | None
    fingerprint: str | None
    created_at: str
    rotated_at: str | None
    used_at: str | None


class PollingPut(Body):
    """What is left out stays; null is as the installation has it."""

    enabled: bool | None = Field(default=None, description="null: while the site has a hook.")
    interval_seconds: Annotated[int, Field(ge=10, le=86_400)] | None = None


class PollingRow(Row):
    """`active` is what follows from `enabled`. `failures` counts the looks in a row that saw nothing."""

    enabled: bool | None
    active: bool
    interval_seconds: int
    seen_at: str | None
    next_at: str | None
    failures: int
    error: dict[str, Any] | None


class BranchRow(Row):
    """A branch as it was heard of last, by a webhook or a poll, and what was done about it."""

    branch: str
    commit_sha: str | None
    via: str
    verdict: Literal["accepted", "ignored", "refused", "known"]
    text: str
    job_id: str | None
    heard_at: str


def _credential(row: RepositoryCredential) -> Json:
    return {
        "id": row.id,
        "site_id": row.site_id,
        "kind": row.kind,
        "host": row.host,
        "username": row.username,
        "public_key": row.public_key,
        "fingerprint": row.fingerprint,
        "created_at": stamp(row.created_at),
        "rotated_at": stamp(row.rotated_at),
        "used_at": stamp(row.used_at),
    }


def _branch(row: RemoteBranch) -> Json:
    text = verdict_text(row.verdict, row.reason, row.job_id, gone=row.commit_sha is None)
    shown = {"branch": row.branch, "commit_sha": row.commit_sha, "via": row.via, "verdict": row.verdict}
    return {**shown, "text": text, "job_id": row.job_id, "heard_at": stamp(row.heard_at)}


def _polling(found: Watched) -> Json:
    row = found.row
    return {
        "enabled": found.enabled,
        "active": found.active,
        "interval_seconds": int(found.interval.total_seconds()),
        "seen_at": stamp(row.seen_at) if row else None,
        "next_at": stamp(row.next_at) if row and found.active else None,
        # A look that is on its way counts as failed until it has handed something in.
        "failures": (row.failures - (row.leased_until is not None)) if row else 0,
        "error": row.error if row else None,
    }


def _made(site: Site, body: CredentialCreate) -> Credential:
    """Raises request.missing_parameter and request.invalid_parameter."""
    if body.kind == DEPLOY_KEY:
        if body.token is not None or body.username is not None:
            raise HeadwayError("request.invalid_parameter", "A deploy key is made here: give its kind.", param="token")
        pair = make_deploy_key(f"headway-{site.slug}")
        return Credential(DEPLOY_KEY, pair.private, public_key=pair.public, fingerprint=pair.fingerprint)
    if body.token is None:
        raise HeadwayError("request.missing_parameter", "Give the token.", param="token")
    return Credential(body.kind, body.token, username=body.username)


@router.get("/credentials", **lists(CredentialRow, "List what a site's private repository is read with"))
async def list_credentials(call: CallDep, paging: PagingDep, site_id: str) -> Response:
    def fetch(session: Session, page: Page) -> tuple[Sequence[RepositoryCredential], bool]:
        return credentials.list_credentials(session, site_to_read(call, session, site_id).id, page)

    return await call.page(paging, fetch, _credential)


@router.post("/credentials", **gives(CredentialRow, "Make a deploy key, or give a token", status=201))
async def create_credential(call: KeyedDep, site_id: str, body: CredentialCreate) -> Response:
    def work(session: Session, once: Once) -> tuple[Json, Json]:
        site = site_to_change(call, session, site_id)
        once.claim(session)
        row = _credential(credentials.create(session, call.parts.vault, site, _made(site, body), call.caller.actor))
        return row, row

    return await call.create(_without_token(body), work)


@router.post(CREDENTIAL + "/rotate", **gives(CredentialRow, "Replace a token, or make another deploy key", status=201))
async def rotate_credential(call: KeyedDep, site_id: str, credential_id: str, body: CredentialRotate) -> Response:
    def work(session: Session, once: Once) -> tuple[Json, Json]:
        site = site_to_change(call, session, site_id)
        once.claim(session)
        row = _credential(_rotated(call, session, site, credential_id, body))
        return row, row

    return await call.create(_without_token(body), work)


def _without_token(body: CredentialCreate | CredentialRotate) -> CredentialCreate | CredentialRotate:
    """What a key's fingerprint is made of: one of the token would be a digest of it, and none is kept."""
    return body.model_copy(update={"token": ""}) if body.token is not None else body


def _rotated(
    call: Call, session: Session, site: Site, credential_id: str, body: CredentialRotate
) -> RepositoryCredential:
    vault, old = call.parts.vault, credentials.credential(session, site.id, credential_id, lock=True)
    if body.token is not None:
        return credentials.replace_token(session, vault, old, body.token, body.username)
    if old.kind != DEPLOY_KEY:
        raise HeadwayError("request.missing_parameter", "Give the token that takes its place.", param="token")
    made = _made(site, CredentialCreate(kind="deploy_key"))
    return credentials.create(session, vault, site, made, call.caller.actor)


@router.delete(CREDENTIAL, **gives(DeletedRow, "Delete a credential"))
async def delete_credential(call: CallDep, site_id: str, credential_id: str) -> Response:
    def work(session: Session) -> None:
        site = site_to_change(call, session, site_id)
        session.delete(credentials.credential(session, site.id, credential_id, lock=True))

    await call.write(work)
    return call.one({"id": credential_id, "deleted": True})


@router.get("/polling", **gives(PollingRow, "How a site's remote repository is polled"))
async def get_polling(call: CallDep, site_id: str) -> Response:
    def work(session: Session) -> Json:
        return _polling(polling.watched(session, site_to_read(call, session, site_id), call.parts.poll_every))

    return call.one(await call.read(work))


@router.put("/polling", **gives(PollingRow, "Change how a site's remote repository is polled"))
async def put_polling(call: CallDep, site_id: str, body: PollingPut) -> Response:
    def work(session: Session) -> Json:
        site, changes = site_to_change(call, session, site_id), body.model_dump(exclude_unset=True)
        return _polling(polling.set_watch(session, site, changes, call.parts.poll_every))

    return call.one(await call.write(work))


@router.get("/branches", **lists(BranchRow, "List the branches that were heard of, each with what was done about it"))
async def list_remote_branches(call: CallDep, paging: PagingDep, site_id: str) -> Response:
    def fetch(session: Session, page: Page) -> tuple[Sequence[RemoteBranch], bool]:
        return polling.list_branches(session, site_to_read(call, session, site_id).id, page)

    return await call.page(paging, fetch, _branch, lambda row: (row.heard_at, row.branch))
