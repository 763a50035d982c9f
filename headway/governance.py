"""The client's calls about policies, held deployments and the audit log. Rows are answered as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from headway.transport import Transport

Json = dict[str, Any]


class Policies:
    """Of a site, or with `env_id` of one of its environments."""

    def __init__(self, transport: Transport) -> None:
        self._t = transport

    def get(self, site_id: str, env_id: str | None = None) -> Json:
        return dict(self._t.get(self._path(site_id, env_id)).data)

    def set(self, site_id: str, env_id: str | None, document: Json) -> Json:
        """The whole document; an empty one is no policy."""
        return dict(self._t.put(self._path(site_id, env_id), document).data)

    def versions(self, site_id: str, env_id: str | None = None, *, limit: int | None = None) -> Iterator[Json]:
        return self._t.pages(f"{self._path(site_id, env_id)}/versions", limit=limit)

    def decision(self, site_id: str, env_id: str, deployment_id: str) -> Json:
        """Raises decision.not_found where no policy has spoken about it."""
        return dict(self._t.get(f"{self._deployment(site_id, env_id, deployment_id)}/decision").data)

    def approve(
        self,
        site_id: str,
        env_id: str,
        deployment_id: str,
        *,
        note: str | None = None,
        idempotency_key: str | None = None,
    ) -> Json:
        path = f"{self._deployment(site_id, env_id, deployment_id)}/approvals"
        body = {"note": note} if note is not None else {}
        return dict(self._t.post(path, body, idempotency_key=idempotency_key).data)

    def break_glass(
        self, site_id: str, env_id: str, deployment_id: str, *, reason: str, idempotency_key: str | None = None
    ) -> Json:
        path = f"{self._deployment(site_id, env_id, deployment_id)}/break-glass"
        return dict(self._t.post(path, {"reason": reason}, idempotency_key=idempotency_key).data)

    def _path(self, site_id: str, env_id: str | None) -> str:
        return f"/v1/sites/{site_id}{f'/environments/{env_id}' if env_id is not None else ''}/policy"

    def _deployment(self, site_id: str, env_id: str, deployment_id: str) -> str:
        return f"/v1/sites/{site_id}/environments/{env_id}/deployments/{deployment_id}"


class Audit:
    """Calls that changed something, newest first; and the whole log in the order of its chain."""

    def __init__(self, transport: Transport) -> None:
        self._t = transport

    def list(self, *, limit: int | None = None, **wanted: Any) -> Iterator[Json]:
        """`wanted`: site_id, env_id, account_id, key_id, action, since, until."""
        given = {name: value for name, value in wanted.items() if value is not None}
        return self._t.pages("/v1/audit", limit=limit, **given)

    def export(self, *, start: int = 0, batch: int = 1000) -> Iterator[Json]:
        """Every link of the chain from `start` on: what this key may not see is a hash alone."""
        while True:
            lines = self._t.raw(f"/v1/audit/export?start={start}&limit={batch}").splitlines()
            yield from (json.loads(line) for line in lines)
            if len(lines) < batch:
                return
            start += len(lines)

    def anchors(self, *, start: int = 0, batch: int = 200) -> Iterator[Json]:
        """The ledger's entries about the chain, each with the statement that it binds."""
        while True:
            lines = self._t.raw(f"/v1/audit/anchors?start={start}&limit={batch}").splitlines()
            found = [json.loads(line) for line in lines]
            yield from found
            if len(found) < batch:
                return
            start = int(found[-1]["log_index"]) + 1
