"""The client's noun of remote repositories: credentials, polling, branches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headway.resources import Resource
from headway.transport import Transport

Json = dict[str, Any]


class RepositoryCredential(Resource):
    """`public_key` is what the forge is given; the secret half is never sent."""

    id: str
    kind: str
    host: str = ""
    username: str | None = None
    public_key: str | None = None
    fingerprint: str | None = None
    created_at: str | None = None
    used_at: str | None = None


class RemoteBranch(Resource):
    branch: str
    commit_sha: str | None = None
    via: str = ""
    verdict: str = ""
    text: str = ""
    job_id: str | None = None
    heard_at: str | None = None


class Repository:
    """What a site's private repository is read with, how it is polled, and what is known of its branches."""

    def __init__(self, transport: Transport) -> None:
        self._t = transport

    def credentials(self, site_id: str, *, limit: int | None = None) -> Iterator[RepositoryCredential]:
        rows = self._t.pages(f"{_of(site_id)}/credentials", limit=limit)
        return (RepositoryCredential.model_validate(row) for row in rows)

    def add_key(self, site_id: str, *, idempotency_key: str | None = None) -> RepositoryCredential:
        """A deploy key, made by the platform: its public half is for the forge."""
        return self._add(site_id, {"kind": "deploy_key"}, idempotency_key)

    def add_token(
        self, site_id: str, token: str, *, username: str | None = None, idempotency_key: str | None = None
    ) -> RepositoryCredential:
        body = {"kind": "token", "token": token, **({"username": username} if username else {})}
        return self._add(site_id, body, idempotency_key)

    def rotate(
        self,
        site_id: str,
        credential_id: str,
        *,
        token: str | None = None,
        username: str | None = None,
        idempotency_key: str | None = None,
    ) -> RepositoryCredential:
        """A token takes the other's place; of a key another one is made, and both are offered until one is deleted."""
        given = {"token": token, "username": username}
        body = {name: value for name, value in given.items() if value is not None}
        path = f"{_of(site_id)}/credentials/{credential_id}/rotate"
        return RepositoryCredential.model_validate(self._t.post(path, body, idempotency_key=idempotency_key).data)

    def delete(self, site_id: str, credential_id: str) -> Json:
        return dict(self._t.delete(f"{_of(site_id)}/credentials/{credential_id}").data)

    def polling(self, site_id: str) -> Json:
        return dict(self._t.get(f"{_of(site_id)}/polling").data)

    def set_polling(self, site_id: str, body: Json) -> Json:
        return dict(self._t.put(f"{_of(site_id)}/polling", body).data)

    def branches(self, site_id: str, *, limit: int | None = None) -> Iterator[RemoteBranch]:
        return (RemoteBranch.model_validate(row) for row in self._t.pages(f"{_of(site_id)}/branches", limit=limit))

    def _add(self, site_id: str, body: Json, key: str | None) -> RepositoryCredential:
        answer = self._t.post(f"{_of(site_id)}/credentials", body, idempotency_key=key)
        return RepositoryCredential.model_validate(answer.data)


def _of(site_id: str) -> str:
    return f"/v1/sites/{site_id}/repository"
