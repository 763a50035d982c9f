"""What apps have printed: the lines of an environment's instances, in the order in which they came in here.

A line is named by its host, its instance, its number there and its time. An instance that was removed and made anew
begins to number again: its lines are later ones, and so they are told from those that are sent a second time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from api.ring import Numbered, Ring, RingReader, Rings
from headway.broker import InstanceLines, LastHeard

LONGEST: Final = 16_384  # characters of a line


@dataclass(frozen=True)
class Line:
    """`number` counts in the environment; `seq` is the rollout's whose instance it is; `ts` is RFC 3339, UTC."""

    number: int
    seq: int
    instance: str
    host_id: str
    ts: str
    stream: str
    text: str


@dataclass(frozen=True)
class Wanted:
    """Which lines: of the instances of these rollouts, of one instance, from a time on. None: all."""

    seqs: frozenset[int] | None = None
    instance: str | None = None
    since: str | None = None

    def takes(self, record: Any) -> bool:
        seq, instance, _, ts, _, _ = record
        return (
            (self.seqs is None or seq in self.seqs)
            and (self.instance is None or instance == self.instance)
            and (self.since is None or ts >= self.since)
        )


class InstanceLogs:
    """Below `folder`, at most about `max_bytes` for each environment. Thread-safe."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.rings = Rings(folder, max_bytes)

    def hear(self, env_id: str, host_id: str, sent: InstanceLines) -> LastHeard:
        """Keep what is new of an instance's lines; what has been heard of it by then. Raises service.unavailable."""
        ring = self.rings.ring(env_id)
        instance = f"{sent.process}.{sent.index}"
        source = f"{host_id}/{sent.seq}/{instance}"
        with ring.alone():
            number, last = ring.heads.get(source, (0, ""))
            numbers = sent.numbers or range(sent.first, sent.first + len(sent.lines))
            fresh = [
                (at, line)
                for at, line in zip(numbers, sent.lines, strict=False)
                # Sent again, unless it is another line of that number.
                if at > number or line[0] > last
            ]
            records = [[sent.seq, instance, host_id, ts, stream, text[:LONGEST]] for _, (ts, stream, text) in fresh]
            if fresh and not sent.numbers and fresh[0][0] > number + 1:
                note = f"{fresh[0][0] - number - 1} lines were dropped here: the app printed more than could be sent."
                records.insert(0, [sent.seq, instance, host_id, fresh[0][1][0], "system", note])
            if fresh:
                number, last = fresh[-1][0], fresh[-1][1][0]
                ring.append(source, [number, last], records)
        return LastHeard(number=number, ts=last)

    def known(self) -> list[str]:
        return self.rings.known()

    def forget(self, env_id: str) -> None:
        self.rings.forget(env_id)

    def tail(self, env_id: str, count: int, wanted: Wanted, before: int | None = None) -> tuple[list[Line], bool]:
        """The last lines, oldest first, and whether there are earlier ones."""
        found, more = self.rings.ring(env_id).tail(count, wanted.takes, before)
        lines = [line_of(one) for one in found]
        dropped = self.rings.ring(env_id).first() - 1
        if not more and len(lines) < count and dropped and wanted.since is None:
            lines.insert(0, _dropped(dropped, lines[0].ts if lines else ""))
        return lines, more

    def follow(self, env_id: str, after: int, wanted: Wanted) -> Following:
        return Following(self.rings.ring(env_id), after, wanted)

    def last_number(self, env_id: str) -> int:
        return self.rings.ring(env_id).newest()

    def size(self, env_id: str) -> int:
        return self.rings.ring(env_id).size()


class Following:
    """One reader of an environment's lines, from behind a number on."""

    def __init__(self, ring: Ring, after: int, wanted: Wanted) -> None:
        # A number of a log that has been lost since: what comes is new to this reader.
        self._reader = RingReader(ring, min(after, ring.newest()))
        self._wanted = wanted

    @property
    def after(self) -> int:
        return self._reader.after

    def read(self) -> list[Line] | None:
        """The next lines that are wanted; None where there are none at all yet."""
        found, dropped = self._reader.read()
        if not found:
            return None
        lines = [line_of(one) for one in found if self._wanted.takes(one[1])]
        if dropped:
            lines.insert(0, _dropped(dropped, found[0][1][3]))
        return lines


def line_of(one: Numbered) -> Line:
    number, (seq, instance, host_id, ts, stream, text) = one
    return Line(number, seq, instance, host_id, ts, stream, text)


def _dropped(count: int, ts: str) -> Line:
    return Line(
        0, 0, "", "", ts, "system", f"{count} earlier lines were dropped: the log of an environment is bounded."
    )
