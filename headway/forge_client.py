"""The client's nouns of what a site reports to its forge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headway.resources import ForgeLink, ForgeReport
from headway.transport import Transport

Json = dict[str, Any]


class Forges:
    """Statuses of commits and comments on pull requests: where they go, and what became of each."""

    def __init__(self, transport: Transport) -> None:
        self._t = transport

    def get(self, site_id: str) -> ForgeLink:
        return ForgeLink.model_validate(self._t.get(_forge(site_id)).data)

    def put(self, site_id: str, provider: str, **fields: Any) -> ForgeLink:
        """`token` is kept where it is left out; `api_url` and `repository` are what the site's own repository says."""
        return ForgeLink.model_validate(self._t.put(_forge(site_id), {"provider": provider, **fields}).data)

    def delete(self, site_id: str) -> Json:
        return dict(self._t.delete(_forge(site_id)).data)

    def reports(self, site_id: str, *, status: str | None = None, limit: int | None = None) -> Iterator[ForgeReport]:
        rows = self._t.pages(f"{_forge(site_id)}/reports", limit=limit, **({"status": status} if status else {}))
        return (ForgeReport.model_validate(row) for row in rows)

    def retry(self, site_id: str, report_id: str, *, idempotency_key: str | None = None) -> ForgeReport:
        path = f"{_forge(site_id)}/reports/{report_id}/retry"
        return ForgeReport.model_validate(self._t.post(path, {}, idempotency_key=idempotency_key).data)


def _forge(site_id: str) -> str:
    return f"/v1/sites/{site_id}/forge"
