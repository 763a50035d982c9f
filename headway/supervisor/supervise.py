"""The loop: start in order, watch, restart what dies, stop in order. It sleeps in the kernel while nothing happens."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal

from headway.errors import HeadwayError
from headway.supervisor import accounts, identity, processes
from headway.supervisor.apps import coming_back, keeper_of, stop_apps
from headway.supervisor.folder import Folder, write_json
from headway.supervisor.logs import last_line, rotate
from headway.supervisor.plan import Plan
from headway.supervisor.progress import Progress
from headway.supervisor.tenure import DOWN, SUPERVISOR, want
from headway.supervisor.twin import Twin
from headway.supervisor.units import Unit

TICK: Final = 0.025
IDLE: Final = 60.0
Outcome = Literal["stopped", "retired", "failed"]


class Supervisor:
    """Carries out a plan. `resumed` says that an earlier supervisor had it healthy already (a standby takes over)."""

    def __init__(self, folder: Folder, plan: Plan, progress: Progress, twin: Twin, *, resumed: bool = False) -> None:
        self.folder, self.plan, self.progress, self.twin = folder, plan, progress, twin
        self.units = {component.name: Unit(component) for component in plan.components}
        self.resumed = resumed
        self.adopted = False
        self.announced = False
        self.failure = ""
        self.degraded = False
        self._began = self._looked = time.monotonic()
        self._signals: list[int] = []
        self._wake, self._woken = socket.socketpair()

    def run(self) -> Outcome:
        """Until somebody asks for the end; blocking. SIGTERM, SIGINT, SIGHUP: stop all. SIGUSR1: retire."""
        self._listen()
        # First of all: whoever kills this process too, while it looks around, must not leave the stack alone.
        self.twin.keep()
        self._adopt()
        if os.geteuid() == 0:
            accounts.hand_out(self.folder, accounts.of_plan(self.plan.components, self.folder))
        while True:
            if signal.SIGUSR1 in self._signals:
                return self._retire()
            if self._signals:
                return self._stop("stopped")
            self._notice_deaths()
            self._start_due()
            self._check()
            self.twin.keep()
            if self.failure:
                return self._stop("failed")
            self._sleep()

    # signals and sleep

    def _listen(self) -> None:
        for end in (self._wake, self._woken):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, lambda got, _frame: self._signals.append(got))
        signal.signal(signal.SIGCHLD, lambda _got, _frame: None)

    def _sleep(self) -> None:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        for unit in self.units.values():
            if unit.process is not None:
                poll.register(unit.process.pidfd, select.POLLIN)
        if self.twin.process is not None:
            poll.register(self.twin.process.pidfd, select.POLLIN)
        poll.poll(self._patience() * 1000)
        # By the clock: on a busy host somebody's orphan ends in every minute.
        if time.monotonic() - self._looked >= IDLE:
            self._looked = time.monotonic()
            self._look_around()
        with suppress(BlockingIOError):
            self._woken.recv(4096)
        self._reap_orphans()

    def _patience(self) -> float:
        """Seconds until something has to be looked at again."""
        if any(self._due(unit) for unit in self.units.values()):
            return 0.0
        now = time.monotonic()
        times = [unit.due - now for unit in self.units.values() if unit.state == "down" and unit.due > now]
        if self.twin.process is None:
            times.append(self.twin.due - now)
        if any(unit.state == "starting" for unit in self.units.values()):
            times.append(TICK)
        return max(0.0, min([*times, self._looked + IDLE - now]))

    def _reap_orphans(self) -> None:
        """This process is a subreaper: what components leave behind is reaped here while it lives."""
        known = {unit.process.pid for unit in self.units.values() if unit.process}
        known |= {self.twin.process.pid} if self.twin.process else set()
        with suppress(ChildProcessError):
            while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if found.si_pid in known:
                    return
                os.waitpid(found.si_pid, 0)

    # the life of components

    def _adopt(self) -> None:
        for unit in self.units.values():
            process = processes.adopt(unit.name, self.folder)
            if process is None:
                if unit.component.once and self.resumed:
                    unit.state = "ready"
                continue
            if process.fingerprint != unit.component.fingerprint():
                self.progress.say(f"  {unit.name:<10} has other settings than before: starting it again")
                processes.stop([(process, unit.component.grace)])
                continue
            self.adopted = True
            unit.started(process)

    def _notice_deaths(self) -> None:
        for unit in self.units.values():
            if unit.process is None or not unit.process.dead():
                continue
            was, exit_text = unit.state, unit.process.bury()
            if unit.component.once and exit_text == "exit code 0":
                self._became_ready(unit)
                unit.process = None
                continue
            unit.died(exit_text)
            self.progress.say(f"  {unit.name:<10} ended ({exit_text}) while {was}: it is started again")
            if unit.looping:
                self.progress.say(f"  {unit.name:<10} keeps dying: see {self.folder.log(unit.name)}")
            if len(unit.deaths) >= unit.component.tries:
                self._fail(self._sentence(unit, f"ended with {exit_text}"))
            self._record()

    def _start_due(self) -> None:
        for unit in self.units.values():
            if self._due(unit):
                try:
                    unit.started(processes.start(unit.component, self.folder, own_nursery=self._own_nursery()))
                except HeadwayError as error:
                    unit.died(error.message)
                    self.progress.say(f"  {unit.name:<10} cannot be started now: {error.message}")
                    self._fail(error.message)
                    continue
                # What sets a component up (a namespace, a schema) is done again when it has started again.
                for other in self.units.values():
                    if other.component.once and unit.name in other.component.after and other.state == "ready":
                        other.state = "waiting"

    def _own_nursery(self) -> bool:
        unit = self.units.get("nursery")
        return unit is not None and unit.process is not None and unit.process.child is not None

    def _due(self, unit: Unit) -> bool:
        due = unit.state == "waiting" or (unit.state == "down" and time.monotonic() >= unit.due)
        return due and all(self.units[name].state == "ready" for name in unit.component.after)

    def _check(self) -> None:
        now = time.monotonic()
        for unit in self.units.values():
            if unit.state != "starting" or unit.component.once or now - unit.last_check < TICK / 2:
                continue
            unit.last_check = now
            if unit.answers():
                self._became_ready(unit)
            elif now - unit.began > unit.component.patience:
                self._give_up(unit)
        if all(unit.state == "ready" for unit in self.units.values()):
            self._healthy()

    def _became_ready(self, unit: Unit) -> None:
        unit.state = "ready"
        took = f"{time.monotonic() - unit.began:5.2f} s"
        if unit.process is not None and unit.process.adopted:
            took = f"running, process {unit.process.pid}"
        self.progress.say(f"  {unit.name:<10} {unit.component.title:<36} {took}")
        self._record()

    def _healthy(self) -> None:
        if self.announced:
            return
        try:
            write_json(self.folder.endpoints, dict(self.plan.endpoints))
        except OSError as error:
            self.failure = f"{self.folder.endpoints} cannot be written: {error.strerror}."
            return
        self.announced = True
        self.progress.say(f"Headway is up in {time.monotonic() - self._began:.1f} s.")
        for name, value in self.plan.hints:
            self.progress.say(f"  {name:<14} {value}")
        if count := coming_back(self.folder):
            shown = f"HEADWAY_DATA_DIR={self.folder.root} headway apps list"
            self.progress.say(f"  {'apps':<14} {count} still coming back: {shown}")
        self._record()
        self.progress.done()

    def _give_up(self, unit: Unit) -> None:
        """A first start fails; later a component that does not come back is killed and tried again."""
        patience = f"{unit.component.patience:.0f} s"
        self._fail(self._sentence(unit, f"was not ready within {patience}"))
        if not self.failure and unit.process is not None:
            self.progress.say(f"  {unit.name:<10} does not answer after {patience}: it is killed")
            unit.process.kill_group()

    def _sentence(self, unit: Unit, what: str) -> str:
        log = self.folder.log(unit.name)
        return f"{unit.name} {what}: {last_line(log) or 'it said nothing'} (log: {log})"

    def _fail(self, sentence: str) -> None:
        """A first start ends here. Where things ran before, they go on, and only the caller is told."""
        if self.announced:
            return
        if not self.adopted:
            self.failure = self.failure or sentence
        elif not self.degraded:
            self.degraded = True
            # Whoever waits for the state may read the reason at once.
            self.progress.complain(f"headway: {sentence} What ran before goes on.")
            self._record()
            self.progress.done()

    def _record(self) -> None:
        facts = {name: unit.facts() for name, unit in self.units.items()}
        state = "healthy" if self.announced else "degraded" if self.degraded else "starting"
        self._note(state=state, components=facts)

    def _note(self, **facts: object) -> None:
        """A full disk must not end what runs; who supervises is known by the lock all the same."""
        with suppress(OSError):
            identity.update(self.folder.record(SUPERVISOR), **facts)

    def _look_around(self) -> None:
        """Once a minute."""
        if not self.folder.path("run").is_dir():
            self.failure = f"The data folder {self.folder.root} is gone."
        for unit in self.units.values():
            rotate(self.folder.log(unit.name))

    # the end

    def _retire(self) -> Outcome:
        """Leave everything running to the next supervisor."""
        self.twin.end()
        self.progress.say("Handing over to the next supervisor.")
        return "retired"

    def _stop(self, outcome: Outcome) -> Outcome:
        with suppress(OSError):
            want(self.folder, DOWN)
        self.twin.end()
        self._note(state="stopping")
        asked = len(self._signals)
        if outcome == "stopped":
            self.progress.say("Stopping everything; once more to kill what is slow.")
        began = time.monotonic()
        running = [(unit.process, unit.component) for unit in self.units.values() if unit.process is not None]
        stop_in_order(
            [(process, component.tier, component.grace) for process, component in running],
            self.progress.say,
            lambda: len(self._signals) > asked,
        )
        stop_apps(self.folder, self.progress.say, keeper_of(self.plan.components))
        accounts.take_back(self.plan.components)
        self._reap_orphans()
        with suppress(OSError):
            self.folder.endpoints.unlink()
        self._note(state=outcome)
        if outcome == "stopped":
            self.progress.say(f"Stopped in {time.monotonic() - began:.1f} s.")
        return outcome


def stop_in_order(
    running: list[tuple[processes.Process, int, float]], say: Callable[[str], None], hurry: Callable[[], bool]
) -> None:
    """Stop the highest tier first; what one tier holds stops together."""
    for tier in sorted({tier for _, tier, _ in running}, reverse=True):
        for name in processes.stop([(one, grace) for one, at, grace in running if at == tier], hurry):
            say(f"  {name:<10} did not stop in time and was killed")
