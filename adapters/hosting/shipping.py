"""The lines of a host's instances on their way to the broker: numbered by the runtime, sent until they are heard.

Nothing is kept here that could not be asked for again: what was heard last is known by the broker, the lines by the
runtime. Only of an instance that is removed the last lines wait in memory.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, Protocol

from adapters.hosting.services import is_command
from adapters.runtime.driver import InstanceRef, LogLine, RuntimeDriver
from headway.broker import InstanceLines, LogBatch, LogHeard
from headway.errors import HeadwayError

EVERY: Final = 1.0
# Of one environment in one round: this is the pace at which a noisy app is heard.
LINES: Final = 4_000
CHARACTERS: Final = 1 << 20
# Of removed instances, while the broker is away.
GONE: Final = 200
KEPT: Final = 1_000_000
log = logging.getLogger("headway.shipping")


class Broker(Protocol):
    def ship_logs(self, env_id: str, batch: LogBatch) -> LogHeard: ...


@dataclass
class Mark:
    """The last line of an instance that the broker has."""

    number: int = 0
    ts: str = ""


@dataclass
class Gone:
    """An instance that has been removed, and what of it had not been heard."""

    ref: InstanceRef
    lines: list[LogLine] = field(default_factory=list)


class Shipper:
    """`run` is the loop for a thread; `leaving` may be called from any other."""

    def __init__(self, host_id: str, driver: RuntimeDriver, broker: Broker) -> None:
        self._host_id = host_id
        self._driver = driver
        self._broker = broker
        self._marks: dict[InstanceRef, Mark] = {}
        self._gone: deque[Gone] = deque(maxlen=GONE)
        self._strange: set[str] = set()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._away = False

    def run(self) -> None:
        """Until `close`, and then once more."""
        while True:
            last = self._closed.is_set()
            try:
                self.look()
                self._away = False
            except HeadwayError as error:
                if not self._away:
                    log.warning("lines of apps are sent later: %s", error.message)
                self._away = True
            except Exception:
                log.exception("lines of apps are sent later")
            if last:
                return
            self._wake.wait(EVERY)
            self._wake.clear()

    def close(self) -> None:
        self._closed.set()
        self._wake.set()

    def leaving(self, ref: InstanceRef) -> None:
        """The instance is about to be forgotten: take what of its log is not heard yet. A command's is its job's."""
        if is_command(ref):
            return
        mark, kept = self._marks.pop(ref, Mark()), deque[LogLine]()
        # Without a mark they may have been heard: the broker knows which.
        lines, room = deque(self._driver.logs(ref, mark.number, KEPT), maxlen=LINES), CHARACTERS
        while lines and (room := room - len(lines[-1].line)) > 0:
            kept.appendleft(lines.pop())
        if kept:
            self._gone.append(Gone(ref, list(kept)))
            self._wake.set()

    def look(self) -> None:
        """Send what is new. Raises what the broker answers, once every environment has been tried."""
        failure = None
        self._ship_gone()
        refs = sorted(status.ref for status in self._driver.list() if not is_command(status.ref))
        for ref in set(list(self._marks)) - set(refs):  # noqa: C414 - another thread may take one away
            self._marks.pop(ref, None)
        for env_id, of_env in groupby(refs, key=lambda ref: ref.env_id):
            if env_id not in self._strange:
                try:
                    self._ship(env_id, list(of_env))
                except HeadwayError as error:
                    if error.code == "environment.not_found":
                        self._strange.add(env_id)
                    else:
                        failure = error
        if failure is not None:
            raise failure

    def _ship_gone(self) -> None:
        while self._gone:
            one = self._gone[0]
            try:
                self._send(one.ref.env_id, {one.ref: one.lines})
            except HeadwayError as error:
                if error.retryable:
                    raise
            if self._gone and self._gone[0] is one:
                self._gone.popleft()

    def _ship(self, env_id: str, refs: list[InstanceRef]) -> None:
        unknown = [ref for ref in refs if ref not in self._marks]
        if unknown:
            self._marks |= self._ask(env_id, unknown)
        marks = {ref: self._marks[ref] for ref in refs if ref in self._marks}
        fresh = {}
        for ref, mark in marks.items():
            if lines := self._lines(ref, mark.number, len(marks)):
                fresh[ref] = lines
        if not fresh:
            return
        self._send(env_id, fresh)
        for ref, lines in fresh.items():
            # It may have been removed meanwhile: then it will begin anew.
            if self._marks.get(ref) is marks[ref]:
                self._marks[ref] = Mark(lines[-1].number, lines[-1].ts)

    def _lines(self, ref: InstanceRef, since: int, sharing: int) -> list[LogLine]:
        """The next lines, a fair part of what is sent at once."""
        found, room = [], CHARACTERS // sharing
        for line in self._driver.logs(ref, since, max(1, LINES // sharing)):
            found.append(line)
            room -= len(line.line)
            if room < 0:
                break
        return found

    def _send(self, env_id: str, fresh: dict[InstanceRef, list[LogLine]]) -> None:
        batch = [
            InstanceLines(
                seq=ref.seq,
                process=ref.process,
                index=ref.index,
                first=lines[0].number,
                numbers=[] if self._driver.counts_lines else [line.number for line in lines],
                lines=[(line.ts, line.stream, line.line) for line in lines],
            )
            for ref, lines in fresh.items()
        ]
        self._broker.ship_logs(env_id, LogBatch(host_id=self._host_id, instances=batch))

    def _ask(self, env_id: str, refs: list[InstanceRef]) -> dict[InstanceRef, Mark]:
        """What the broker has heard of these instances, as far as it is of the logs that lie here now."""
        asked = [InstanceLines(seq=ref.seq, process=ref.process, index=ref.index) for ref in refs]
        heard = self._broker.ship_logs(env_id, LogBatch(host_id=self._host_id, instances=asked)).heard
        return {ref: self._checked(ref, Mark(last.number, last.ts)) for ref, last in zip(refs, heard, strict=True)}

    def _checked(self, ref: InstanceRef, mark: Mark) -> Mark:
        """Nothing, where the instance was removed and made anew since: its log has no such line."""
        if mark.number == 0:
            return mark
        after = next(self._driver.logs(ref, mark.number - 1, 1), None)
        if after is None or (after.number == mark.number and after.ts != mark.ts):
            return Mark()
        return mark
