"""What a host says of a rollout: in parts that arrive, each line once, the newest where the broker was away."""

from __future__ import annotations

from dataclasses import dataclass, field

from activities.telling import AT_ONCE, KEPT, Teller
from headway.broker import Events, Heard
from headway.errors import HeadwayError


@dataclass
class Broker:
    away: bool = False
    heard: dict[int, str | None] = field(default_factory=dict)
    largest: int = 0

    def append(self, job_id: str, events: Events, *, patience: float | None = None) -> Heard:
        del job_id, patience
        if self.away:
            raise HeadwayError("service.unavailable", "away")
        self.largest = max(self.largest, len(events.events))
        for number, event in enumerate(events.events, events.first):
            assert number not in self.heard
            self.heard[number] = event.line
        return Heard(cancel=False)


def test_many_lines_are_told_in_parts() -> None:
    broker = Broker()
    teller = Teller(broker, "job_1", "s")
    for number in range(3 * AT_ONCE + 1):
        teller.line(str(number))
    teller.flush(now=True)
    assert [*broker.heard.values()] == [str(number) for number in range(3 * AT_ONCE + 1)]
    assert broker.largest == AT_ONCE


def test_what_waits_for_a_broker_is_bounded() -> None:
    broker = Broker(away=True)
    teller = Teller(broker, "job_1", "s")
    for number in range(KEPT + 500):
        teller.line(str(number))
    teller.flush(now=True)
    broker.away = False
    teller.line("last")
    teller.flush(now=True)
    assert len(broker.heard) == KEPT
    assert [*broker.heard.values()][-1] == "last"
