"""What visitors asked of an environment: counted by minute, and the last requests one by one. Bounded files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from api.ring import Numbered, Rings
from headway.broker import RequestBatch, RequestsHeard
from headway.buckets import percentile

# Of one environment: about a day of minutes under steady traffic, and some 30,000 requests.
MINUTE_BYTES: Final = 8 << 20
LINE_BYTES: Final = 8 << 20
ALL: Final = 1 << 40


@dataclass
class Tally:
    """Requests of a minute, or of several: by the first digit of the status, bytes, durations by bucket."""

    classes: list[int] = field(default_factory=lambda: [0] * 6)
    size: int = 0
    durations: dict[int, int] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        self.classes = [mine + more for mine, more in zip(self.classes, other.classes, strict=True)]
        self.size += other.size
        for bucket, count in other.durations.items():
            self.durations[bucket] = self.durations.get(bucket, 0) + count

    @property
    def requests(self) -> int:
        return sum(self.classes)

    def percentiles(self) -> dict[str, float | None]:
        return {f"p{part}_ms": percentile(self.durations, part / 100) for part in (50, 95, 99)}


class Requests:
    """Below `folder`. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self.minutes = Rings(folder / "minutes", MINUTE_BYTES)
        self.lines = Rings(folder / "lines", LINE_BYTES)

    def hear(self, env_id: str, body: RequestBatch) -> RequestsHeard:
        """Count a batch that goes beyond what is counted of that host; what is, by then."""
        minutes = [[one.minute, one.classes, one.size, one.durations] for one in body.minutes]
        lines = [
            [one.ts, one.hostname, one.method, one.path, one.status, one.duration_ms, one.size, 0] for one in body.lines
        ]
        if lines:
            lines[0][-1] = body.unlisted
        self._keep(self.lines, env_id, body, lines)
        return RequestsHeard(upto=self._keep(self.minutes, env_id, body, minutes))

    def tallies(self, env_id: str, since: int, until: int) -> dict[int, Tally]:
        """What was counted in each of these minutes (Unix time / 60) in which anything was asked."""
        found, _ = self.minutes.ring(env_id).tail(ALL, lambda record: since <= record[0] <= until)
        tallies: dict[int, Tally] = {}
        for _, (minute, classes, size, durations) in found:
            more = Tally(classes, size, {int(bucket): count for bucket, count in durations.items()})
            tallies.setdefault(minute, Tally()).add(more)
        return dict(sorted(tallies.items()))

    def last(self, env_id: str, count: int, before: int | None) -> tuple[list[Numbered], bool]:
        """The last requests, oldest first, and whether there are earlier ones."""
        return self.lines.ring(env_id).tail(count, lambda _: True, before)

    def known(self) -> list[str]:
        return sorted({*self.minutes.known(), *self.lines.known()})

    def forget(self, env_id: str) -> None:
        self.minutes.forget(env_id)
        self.lines.forget(env_id)

    def _keep(self, rings: Rings, env_id: str, body: RequestBatch, records: list[list[Any]]) -> tuple[float, int]:
        ring = rings.ring(env_id)
        with ring.alone():
            place, offset = ring.heads.get(body.host_id, (0.0, 0))
            if records and body.upto > (place, offset):
                ring.append(body.host_id, list(body.upto), records)
                return body.upto
            return place, offset


def total(tallies: Iterable[Tally]) -> Tally:
    made = Tally()
    for one in tallies:
        made.add(one)
    return made
