"""The client's nouns of the operator: serving and building machines, and the upkeep of the object store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import quote

from headway.nouns import Json, Noun
from headway.resources import AddedBuilder, Build, Builder, Finding, Host, Job, JoinedHost


class Hosts(Noun):
    """For the operator: serving machines and their keys."""

    def list(self, *, limit: int | None = None) -> Iterator[Host]:
        return self._list(Host, "/v1/hosts", limit)

    def get(self, host_id: str) -> Host:
        return Host.model_validate(self._t.get(f"/v1/hosts/{quote(host_id, safe='')}").data)

    def join(self, host_id: str, labels: Sequence[str] = (), *, idempotency_key: str | None = None) -> JoinedHost:
        """Let a machine in. The credential is shown here alone: empty where the key's first request had it."""
        body = {"id": host_id, "labels": list(labels)}
        return JoinedHost.model_validate(self._t.post("/v1/hosts", body, idempotency_key=idempotency_key).data)

    def renew(self, host_id: str, *, idempotency_key: str | None = None) -> JoinedHost:
        """A new credential; the one before ends."""
        path = f"/v1/hosts/{quote(host_id, safe='')}/credential"
        return JoinedHost.model_validate(self._t.post(path, idempotency_key=idempotency_key).data)

    def label(self, host_id: str, labels: Sequence[str]) -> Host:
        path = f"/v1/hosts/{quote(host_id, safe='')}/labels"
        return Host.model_validate(self._t.put(path, {"labels": list(labels)}).data)

    def accept(self, host_id: str, public_key: str, *, idempotency_key: str | None = None) -> Host:
        path = f"/v1/hosts/{quote(host_id, safe='')}/accept"
        return Host.model_validate(self._t.post(path, {"public_key": public_key}, idempotency_key=idempotency_key).data)

    def forget(self, host_id: str) -> Json:
        return dict(self._t.delete(f"/v1/hosts/{quote(host_id, safe='')}").data)


class Builders(Noun):
    """For the operator: building machines elsewhere."""

    def list(self, *, limit: int | None = None) -> Iterator[Builder]:
        return self._list(Builder, "/v1/builders", limit)

    def get(self, builder_id: str) -> Builder:
        return Builder.model_validate(self._t.get(f"/v1/builders/{quote(builder_id, safe='')}").data)

    def builds(self, builder_id: str, *, limit: int | None = None) -> Iterator[Build]:
        """What it has begun last, of all sites."""
        return self._list(Build, f"/v1/builders/{quote(builder_id, safe='')}/builds", limit)

    def add(self, builder_id: str, *, idempotency_key: str | None = None) -> AddedBuilder:
        """Let a machine build. The credential is shown here alone: empty where the key's first request had it."""
        answer = self._t.post("/v1/builders", {"id": builder_id}, idempotency_key=idempotency_key)
        return AddedBuilder.model_validate(answer.data)

    def renew(self, builder_id: str, *, idempotency_key: str | None = None) -> AddedBuilder:
        """A new credential; the one before ends."""
        path = f"/v1/builders/{quote(builder_id, safe='')}/credential"
        return AddedBuilder.model_validate(self._t.post(path, idempotency_key=idempotency_key).data)

    def remove(self, builder_id: str) -> Json:
        return dict(self._t.delete(f"/v1/builders/{quote(builder_id, safe='')}").data)


class Retention(Noun):
    """For the operator: collection of what nothing needs any more."""

    def run(self, *, dry_run: bool = False, idempotency_key: str | None = None) -> Job:
        return self._job(self._t.post("/v1/retention/runs", {"dry_run": dry_run}, idempotency_key=idempotency_key))

    def report(self) -> Json:
        return dict(self._t.get("/v1/retention").data)


class Integrity(Noun):
    """For the operator: whether the object store has what it should have."""

    def scrub(self, *, whole: bool = False, idempotency_key: str | None = None) -> Job:
        return self._job(self._t.post("/v1/integrity/scrubs", {"whole": whole}, idempotency_key=idempotency_key))

    def report(self) -> Json:
        return dict(self._t.get("/v1/integrity").data)

    def findings(self, *, limit: int | None = None) -> Iterator[Finding]:
        return self._list(Finding, "/v1/integrity/findings", limit)
