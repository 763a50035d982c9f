"""The client's noun of configuration: variables and secrets."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from headway.nouns import Json, Noun, env_path
from headway.resources import Value
from headway.transport import Transport


class Values(Noun):
    """Variables or secrets of an environment, or without `env_id` the site's defaults. A secret comes without value."""

    def __init__(self, transport: Transport, noun: str) -> None:
        super().__init__(transport)
        self._noun = noun

    def list(self, site_id: str, env_id: str | None = None, *, limit: int | None = None) -> Iterator[Value]:
        """What the next rollout takes: of an environment with the site's defaults that it does not replace."""
        return self._list(Value, self._path(site_id, env_id), limit)

    def versions(self, site_id: str, env_id: str | None, key: str, *, limit: int | None = None) -> Iterator[Value]:
        return self._list(Value, f"{self._path(site_id, env_id, key)}/versions", limit)

    def get(self, site_id: str, env_id: str | None, key: str) -> Value:
        return Value.model_validate(self._t.get(self._path(site_id, env_id, key)).data)

    def set(self, site_id: str, env_id: str | None, key: str, value: str) -> Value:
        """A new version, for the next rollout."""
        return Value.model_validate(self._t.put(self._path(site_id, env_id, key), {"value": value}).data)

    def unset(self, site_id: str, env_id: str | None, key: str) -> Json:
        return dict(self._t.delete(self._path(site_id, env_id, key)).data)

    def revoke(
        self, site_id: str, env_id: str | None, key: str, version_id: str, *, idempotency_key: str | None = None
    ) -> Value:
        """Destroy one version of a secret: no rollback goes back to it."""
        path = f"{self._path(site_id, env_id, key)}/revoke"
        answer = self._t.post(path, {"version_id": version_id}, idempotency_key=idempotency_key)
        return Value.model_validate(answer.data)

    def _path(self, site_id: str, env_id: str | None, key: str | None = None) -> str:
        base = f"/v1/sites/{site_id}" if env_id is None else env_path(site_id, env_id)
        return f"{base}/{self._noun}" if key is None else f"{base}/{self._noun}/{quote(key, safe='')}"
