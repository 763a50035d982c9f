"""One-off commands on a host: run once, in the walls of the release's instances, told line by line."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from temporalio import activity
from temporalio.exceptions import ApplicationError, CancelledError

from activities.beating import beating
from activities.host import DISK_TRIES
from activities.telling import Teller
from adapters.hosting.inputs import fetch_input
from adapters.hosting.services import Services
from adapters.hosting.turns import Turns
from adapters.runtime.driver import LogLine
from headway.broker import CommandSpec, Event, Events, Heard, InputPart
from headway.errors import HeadwayError
from temporal.failures import bounded_tries, mapped
from temporal.messages import CommandEnded, CommandOrder

EVERY: Final = 0.3
MOST: Final = 1000
# What the broker says of a command that nobody waits for any more.
OVER: Final = frozenset({"job.canceled", "job.not_found", "attempt.stale"})
log = logging.getLogger("headway.host")


class Broker(Protocol):
    def begin_command(self, job_id: str) -> CommandSpec: ...

    def command_input(self, job_id: str, start: int) -> InputPart: ...

    def append(self, job_id: str, events: Events, *, patience: float | None = None) -> Heard: ...


class Commands:
    """Activities of the role `host/<id>`."""

    def __init__(self, host_id: str, broker: Broker, services: Services, turns: Turns | None = None) -> None:
        self.host_id = host_id
        self._broker = broker
        self._services = services
        self._turns = turns or Turns()
        self._lock = threading.Lock()
        self._in_hand = Counter[str]()

    @activity.defn(name="host.run", no_thread_cancel_exception=True)
    @mapped
    def run_command(self, order: CommandOrder) -> CommandEnded:
        with self._held(order.job_id):
            return self._run(order)

    async def watch(self, *, every: float = 10.0) -> None:
        """For ever: end the commands that nobody waits for any more."""
        while True:
            await asyncio.sleep(every)
            try:
                await asyncio.to_thread(self.end_unwanted)
            except Exception as error:
                log.warning("commands are looked through again: %s", error)

    def end_unwanted(self) -> None:
        """What goes on though its job has ended: no worker was here when it was canceled, or its run was ended."""
        for job_id, ref in self._services.running_commands().items():
            with self._lock:
                if self._in_hand[job_id]:
                    continue
            try:
                self._broker.begin_command(job_id)
            except HeadwayError as error:
                if error.code not in OVER:
                    continue
                log.warning("%s is ended: %s", ref, error.message)
                self._services.end_command(ref)
                (self._services.folders.inputs / job_id).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _held(self, job_id: str) -> Iterator[None]:
        with self._lock:
            self._in_hand[job_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_hand[job_id] -= 1
                self._in_hand += Counter()  # of what is over nothing is kept

    def _run(self, order: CommandOrder) -> CommandEnded:
        spec = self._broker.begin_command(order.job_id)
        told = Told(self._broker, order.job_id, f"{order.job_id}/{self.host_id}")
        # Once: a run whose keeper was killed may have done half of its work, and is not begun anew.
        with (
            beating() as check,
            self._input(spec) as given,
            bounded_tries("runtime.unavailable", 1),
            bounded_tries("roll.disk_floor", DISK_TRIES),
            self._turn(spec, check),
        ):
            began = time.monotonic()
            if given is not None and spec.given is not None:
                fetch_input(given, spec.given, lambda start: self._broker.command_input(spec.job_id, start).data, check)
            code = self._services.run_command(
                spec.env_id, spec.seq, order.job_id, spec.command, spec.timeout, _is_unwanted, told.lines, given
            )
        told.flush()
        return CommandEnded(order.job_id, code, round(1000 * (time.monotonic() - began)))

    @contextlib.contextmanager
    def _turn(self, spec: CommandSpec, check: Callable[[], None]) -> Iterator[None]:
        """A place among the commands of this host. What goes on from before this worker was started has one."""
        if self._services.knows_command(spec.env_id, spec.seq, spec.job_id):
            with self._turns.counted(spec.env_id):
                yield
            return

        def waits(ahead: int) -> None:
            source = f"{spec.job_id}/{self.host_id}/turn/{activity.info().attempt}"
            teller = Teller(self._broker, spec.job_id, source)
            others = f", {ahead} wait before it" if ahead else ""
            teller.line(f"waits for its turn: this host runs {self._turns.at_once} commands at once{others}")
            teller.flush(now=True)

        with self._turns.turn(spec.env_id, waits, check):
            yield

    @contextlib.contextmanager
    def _input(self, spec: CommandSpec) -> Iterator[Path | None]:
        """Where its input lies, until no other attempt can want it."""
        path = self._services.folders.inputs / spec.job_id if spec.given is not None else None
        over = True
        try:
            yield path
        except Exception as error:
            over = _is_final(error)
            raise
        finally:
            if path is not None and over:
                path.unlink(missing_ok=True)


def _is_unwanted() -> bool:
    """Whether somebody wants the command's end. Raises service.unavailable where only this attempt is over: the worker
    stops, or Temporal has not heard of it for too long. The command goes on then, and the next attempt joins it.
    """
    if not activity.is_cancelled():
        return False
    if _is_requested():
        return True
    raise HeadwayError("service.unavailable", "This host worker is gone; the command goes on.")


def _is_requested() -> bool:
    details = activity.cancellation_details()
    return details is not None and details.cancel_requested


def _is_final(error: Exception) -> bool:
    if isinstance(error, HeadwayError):
        return not error.retryable
    if isinstance(error, ApplicationError):
        return error.non_retryable
    return isinstance(error, CancelledError) and _is_requested()


class Told:
    """Lines on their way into the job's log, by the numbers that they have: told again, a line is the same one."""

    def __init__(self, broker: Broker, job_id: str, source: str) -> None:
        self._broker, self._job_id, self._source = broker, job_id, source
        self._sent = 0
        self._next_at = 0.0

    def lines(self, after: Callable[[int], Sequence[LogLine]]) -> None:
        """Send what came since the last time, if it is time. `after` gives the lines with a higher number."""
        self._after = after
        if time.monotonic() >= self._next_at:
            self._next_at = time.monotonic() + EVERY
            self._send(patience=0.0)

    def flush(self) -> None:
        """All of it, for as long as the broker may be away while it starts again."""
        while self._send(patience=30.0):
            pass

    def _send(self, patience: float) -> bool:
        fresh = self._after(self._sent)[:MOST]
        if not fresh:
            return False
        events = [Event(kind="log", ts=one.ts, stage="run", stream=one.stream, line=one.line) for one in fresh]
        batch = Events(source=self._source, first=fresh[0].number, events=events)
        try:
            self._broker.append(self._job_id, batch, patience=patience)
        except HeadwayError:
            return False  # kept at the host until the next time; at the end the exit code counts
        self._sent = fresh[-1].number
        return True
