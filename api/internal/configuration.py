"""Hosts: who they are, and a rollout's configuration sealed to each one's own key. Only here is a value opened."""

from __future__ import annotations

import base64

from adapters.config.sealed import Seat, is_public_key, seal
from adapters.config.vault import Vault
from adapters.redaction import SHOWN, telling
from headway.broker import HostHello, Known, SealedConfig
from headway.errors import HeadwayError
from store import hosts
from store.config_sets import ToSeal, thaw_running, to_seal
from store.config_values import open_value
from store.session import Store


class Configuration:
    def __init__(self, store: Store, vault: Vault) -> None:
        self.store = store
        self.vault = vault

    def hello(self, host_id: str, body: HostHello) -> Known:
        """A host that starts. Raises host.key_changed until an operator has accepted its new key."""
        if not is_public_key(body.public_key):
            raise HeadwayError("request.invalid_parameter", "That is no X25519 key.", param="public_key")
        known = self.store.in_write(lambda session: hosts.register_host(session, host_id, body.public_key, body.labels))
        if known.public_key != body.public_key:
            message = f"The host {host_id} has another key pinned: it gets no configuration."
            raise HeadwayError("host.key_changed", message)
        return Known(host_id=known.id, labels=known.labels)

    def sealed(self, rollout_id: str, host_id: str) -> SealedConfig:
        """For that host alone. Raises deployment.not_found, attempt.stale, host.not_found, config.unreadable."""
        found, public_key = self._look(rollout_id, host_id)
        if found.stale:
            self.store.in_write(lambda session: thaw_running(session, rollout_id))
            found, public_key = self._look(rollout_id, host_id)
        rollout = found.rollout
        values = {row.name: open_value(self.vault, row) for row in found.values}
        variables = {row.name: values[row.name] for row in found.values if not row.secret}
        if shown := sorted(variables.keys() - telling(variables).keys()):
            values[SHOWN] = ",".join(shown)
        seat = Seat(host_id, rollout.env_id, rollout.apply_seq or 0, rollout.id, rollout.config_version)
        return SealedConfig(
            rollout_id=rollout.id,
            config_version=rollout.config_version,
            sealed=base64.b64encode(seal(public_key, values, seat)).decode(),
        )

    def _look(self, rollout_id: str, host_id: str) -> tuple[ToSeal, str]:
        with self.store.read() as session:
            found = to_seal(session, rollout_id, host_id)
            return found, hosts.host(session, host_id).public_key
