"""The client's nouns that only read: releases, the ledger, what apps print, what visitors asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from headway.errors import HeadwayError
from headway.following import Follower
from headway.nouns import Json, Noun, env_path, given
from headway.resources import LogLine, Metrics, Release, RequestLog


class Releases(Noun):
    def list(self, site_id: str, env_id: str, *, limit: int | None = None) -> Iterator[Release]:
        return self._list(Release, f"{env_path(site_id, env_id)}/releases", limit)

    def why(self, site_id: str, env_id: str, *, release_id: str | None = None) -> Json:
        """From the commit to the switch. Raises release.none where nothing runs yet."""
        return dict(self._t.get(f"{env_path(site_id, env_id)}/why", **given(release_id=release_id)).data)

    def record(self, site_id: str, env_id: str, release_id: str) -> bytes:
        """The signed record of a release, as a bundle. Raises ledger.entry_not_found until it is entered."""
        return self._t.raw(f"{env_path(site_id, env_id)}/releases/{release_id}/record")

    def current(self, site_id: str, env_id: str) -> Release:
        """Raises release.none where nothing runs yet."""
        for release in self.list(site_id, env_id):
            if release.current:
                return release
        raise HeadwayError("release.none", "Nothing runs on that environment yet.")


class Ledger(Noun):
    """Hashes and signatures of all that was signed: what `adapters.ledger` checks."""

    def checkpoint(self) -> str:
        return self._t.raw("/v1/ledger/checkpoint").decode()

    def trusted_root(self) -> bytes:
        return self._t.raw("/v1/ledger/trusted_root.json")

    def keyring(self) -> bytes:
        return self._t.raw("/v1/ledger/keyring.json")

    def entries(self, *, start: int = 0, end: int, batch: int = 1000) -> Iterator[Json]:
        """Entries `start` up to `end`, in order; stops early where the server has fewer."""
        while start < end:
            size = min(batch, end - start)
            lines = self._t.raw(f"/v1/ledger/entries?start={start}&limit={size}").splitlines()
            yield from (json.loads(line) for line in lines)
            if len(lines) < size:
                return
            start += size


class Logs(Noun):
    """Lines of an environment's apps, oldest first. `wanted`: tail, release, instance, since."""

    def last(self, site_id: str, env_id: str, **wanted: Any) -> list[LogLine]:
        answer = self._t.get(f"{env_path(site_id, env_id)}/logs", **wanted)
        return [LogLine.model_validate(row) for row in answer.data]

    def follow(self, site_id: str, env_id: str, **wanted: Any) -> Iterator[LogLine]:
        """The last lines, then each new one, until the environment is gone; resumed after a broken connection."""
        path = f"{env_path(site_id, env_id)}/logs"
        if asked := given(**wanted):
            path += "?" + urlencode(asked)
        return (LogLine.model_validate(row) for row in Follower(self._t).lines(path))


class Requests(Noun):
    """What visitors asked of an environment."""

    def metrics(self, site_id: str, env_id: str, *, minutes: int | None = None) -> Metrics:
        return Metrics.model_validate(self._t.get(f"{env_path(site_id, env_id)}/metrics", minutes=minutes).data)

    def last(self, site_id: str, env_id: str, *, tail: int | None = None) -> list[RequestLog]:
        """The last requests, oldest first."""
        answer = self._t.get(f"{env_path(site_id, env_id)}/request-logs", tail=tail)
        return [RequestLog.model_validate(row) for row in answer.data]
