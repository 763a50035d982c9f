"""The client's nouns of what goes out and comes in by names of the callers' own: webhooks, domains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from headway.errors import HeadwayError
from headway.nouns import Noun
from headway.resources import Delivery, Domain, ForgeCall, ForgeHook, Job, WebhookEndpoint
from headway.transport import Transport

Json = dict[str, Any]
_W = "/v1/webhook-endpoints"


class Webhooks:
    """Endpoints to which events are sent, and what became of each."""

    def __init__(self, transport: Transport) -> None:
        self._t = transport

    def create(
        self,
        url: str,
        events: Sequence[str],
        *,
        description: str | None = None,
        resource: Json | None = None,
        idempotency_key: str | None = None,
    ) -> WebhookEndpoint:
        """With `signing_secret`, once."""
        body: Json = {"url": url, "events": [*events]}
        body |= {"description": description} if description is not None else {}
        body |= {"resource": resource} if resource is not None else {}
        return WebhookEndpoint.model_validate(self._t.post(_W, body, idempotency_key=idempotency_key).data)

    def list(self, *, limit: int | None = None) -> Iterator[WebhookEndpoint]:
        return (WebhookEndpoint.model_validate(row) for row in self._t.pages(_W, limit=limit))

    def get(self, endpoint_id: str) -> WebhookEndpoint:
        return WebhookEndpoint.model_validate(self._t.get(f"{_W}/{endpoint_id}").data)

    def update(self, endpoint_id: str, **fields: Any) -> WebhookEndpoint:
        return WebhookEndpoint.model_validate(self._t.patch(f"{_W}/{endpoint_id}", fields).data)

    def delete(self, endpoint_id: str) -> Json:
        return dict(self._t.delete(f"{_W}/{endpoint_id}").data)

    def rotate(
        self, endpoint_id: str, *, grace_period: str | None = None, idempotency_key: str | None = None
    ) -> WebhookEndpoint:
        body = {"grace_period": grace_period} if grace_period is not None else {}
        answer = self._t.post(f"{_W}/{endpoint_id}/rotate", body, idempotency_key=idempotency_key)
        return WebhookEndpoint.model_validate(answer.data)

    def test(self, endpoint_id: str, *, idempotency_key: str | None = None) -> Delivery:
        return Delivery.model_validate(
            self._t.post(f"{_W}/{endpoint_id}/test", {}, idempotency_key=idempotency_key).data
        )

    def deliveries(self, endpoint_id: str, *, limit: int | None = None) -> Iterator[Delivery]:
        return (Delivery.model_validate(row) for row in self._t.pages(f"{_W}/{endpoint_id}/deliveries", limit=limit))

    def replay(self, endpoint_id: str, delivery_id: str, *, idempotency_key: str | None = None) -> Delivery:
        path = f"{_W}/{endpoint_id}/deliveries/{delivery_id}/replay"
        return Delivery.model_validate(self._t.post(path, {}, idempotency_key=idempotency_key).data)


class Domains(Noun):
    """Host names of the caller's own, for an environment."""

    def attach(
        self, site_id: str, env_id: str, hostname: str, *, idempotency_key: str | None = None, **fields: Any
    ) -> Job:
        """The job looks for the DNS records that the domain's row names, then leads the name here."""
        body = {"hostname": hostname, **fields}
        return Job.model_validate(self._t.post(_domains(site_id, env_id), body, idempotency_key=idempotency_key).data)

    def list(self, site_id: str, env_id: str, *, limit: int | None = None) -> Iterator[Domain]:
        return (Domain.model_validate(row) for row in self._t.pages(_domains(site_id, env_id), limit=limit))

    def get(self, site_id: str, env_id: str, domain_id: str) -> Domain:
        return Domain.model_validate(self._t.get(f"{_domains(site_id, env_id)}/{domain_id}").data)

    def find(self, site_id: str, env_id: str, name_or_id: str) -> Domain:
        """By id, else by host name. Raises domain.not_found."""
        for one in self.list(site_id, env_id):
            if name_or_id in (one.id, one.hostname):
                return one
        raise HeadwayError("domain.not_found", f"There is no domain {name_or_id!r} on that environment.")

    def update(self, site_id: str, env_id: str, domain_id: str, **fields: Any) -> Job:
        return Job.model_validate(self._t.patch(f"{_domains(site_id, env_id)}/{domain_id}", fields).data)

    def verify(self, site_id: str, env_id: str, domain_id: str, *, idempotency_key: str | None = None) -> Job:
        path = f"{_domains(site_id, env_id)}/{domain_id}/verify"
        return Job.model_validate(self._t.post(path, {}, idempotency_key=idempotency_key).data)

    def detach(self, site_id: str, env_id: str, domain_id: str) -> Job:
        return self._deletion(f"{_domains(site_id, env_id)}/{domain_id}", "domain")


def _domains(site_id: str, env_id: str) -> str:
    return f"/v1/sites/{site_id}/environments/{env_id}/domains"


class Hooks:
    """Addresses that a site's forge calls when it is pushed to."""

    def __init__(self, transport: Transport) -> None:
        self._t = transport

    def create(self, site_id: str, provider: str, *, idempotency_key: str | None = None) -> ForgeHook:
        """With `secret`, once."""
        answer = self._t.post(f"/v1/sites/{site_id}/hooks", {"provider": provider}, idempotency_key=idempotency_key)
        return ForgeHook.model_validate(answer.data)

    def list(self, site_id: str, *, limit: int | None = None) -> Iterator[ForgeHook]:
        return (ForgeHook.model_validate(row) for row in self._t.pages(f"/v1/sites/{site_id}/hooks", limit=limit))

    def delete(self, site_id: str, hook_id: str) -> Json:
        return dict(self._t.delete(f"/v1/sites/{site_id}/hooks/{hook_id}").data)

    def calls(self, site_id: str, hook_id: str, *, limit: int | None = None) -> Iterator[ForgeCall]:
        path = f"/v1/sites/{site_id}/hooks/{hook_id}/calls"
        return (ForgeCall.model_validate(row) for row in self._t.pages(path, limit=limit))
