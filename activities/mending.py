"""A host's part in mending the object store: role `host/<id>`."""

from __future__ import annotations

from typing import Protocol

from temporalio import activity

from activities.beating import beating
from adapters.hosting.lending import Lender
from headway.broker import MendSpec, Offer
from headway.errors import HeadwayError
from temporal.failures import mapped
from temporal.messages import Mend, MendTried


class Broker(Protocol):
    def offer(self, finding_id: str, offer: Offer) -> MendSpec: ...


class Mending:
    """Activity `host.mend`."""

    def __init__(self, host_id: str, lender: Lender, broker: Broker) -> None:
        self.host_id = host_id
        self._lender = lender
        self._broker = broker

    @activity.defn(name="host.mend", no_thread_cancel_exception=True)
    @mapped
    def mend(self, mend: Mend) -> MendTried:
        """Raises what is to be tried again; why this host cannot is an answer."""
        with beating() as check:
            try:
                size = self._lender.manifest_size(mend.name) if mend.object == "manifest" else 0
                self._lender.mend(self._broker.offer(mend.finding_id, Offer(size=size)), check)
            except HeadwayError as error:
                if error.retryable and error.code != "roll.disk_floor":
                    raise
                return MendTried(mend.finding_id, self.host_id, error.message)
        return MendTried(mend.finding_id, self.host_id)
