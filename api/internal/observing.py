"""What hosts see of running environments: lines of apps, requests of visitors; in files, never in the database."""

from __future__ import annotations

from api.instance_logs import InstanceLogs
from api.requests import Requests
from headway.broker import LogBatch, LogHeard, RequestBatch, RequestsHeard
from headway.errors import HeadwayError
from store.fleet import serves
from store.models import Environment
from store.session import Store


class Observing:
    def __init__(self, store: Store, logs: InstanceLogs, requests: Requests) -> None:
        self.store = store
        self.logs = logs
        self.requests = requests

    def hear_lines(self, env_id: str, body: LogBatch) -> LogHeard:
        """Raises environment.not_found and service.unavailable: then some of the batch may have been kept."""
        self._require(env_id, body.host_id)
        return LogHeard(heard=[self.logs.hear(env_id, body.host_id, one) for one in body.instances])

    def hear_requests(self, env_id: str, body: RequestBatch) -> RequestsHeard:
        """Raises environment.not_found and service.unavailable."""
        self._require(env_id, body.host_id)
        return self.requests.hear(env_id, body)

    def _require(self, env_id: str, host_id: str) -> None:
        with self.store.read() as session:
            row = session.get(Environment, env_id)
            there = row is not None and row.deleted_at is None and serves(session, env_id, host_id)
        if not there:
            raise HeadwayError("environment.not_found", f"There is no environment {env_id} on {host_id}.")
