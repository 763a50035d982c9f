"""One component over time: waiting, starting, ready, down for a while, started again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Literal

from headway.supervisor import checks
from headway.supervisor.plan import Component
from headway.supervisor.processes import Process

FIRST_DELAY = 0.2
LAST_DELAY = 5.0
# A process that has run this long is given the first delay again.
SETTLED = 60.0
# Deaths within SETTLED seconds from which on it is called a crash loop.
LOOP = 5

State = Literal["waiting", "starting", "ready", "down"]


@dataclass
class Unit:
    """`began` and `due` are monotonic seconds."""

    component: Component
    state: State = "waiting"
    process: Process | None = None
    began: float = 0.0
    due: float = 0.0
    delay: float = FIRST_DELAY
    deaths: list[float] = field(default_factory=list)
    restarts: int = 0
    last_exit: str = ""
    last_check: float = 0.0

    @property
    def name(self) -> str:
        return self.component.name

    def started(self, process: Process) -> None:
        self.process, self.state, self.began = process, "starting", time.monotonic()

    def answers(self) -> bool:
        return all(checks.holds(check) for check in self.component.ready)

    def died(self, exit_text: str) -> None:
        """Note a death and when to start again."""
        now = time.monotonic()
        self.delay = FIRST_DELAY if now - self.began > SETTLED else self.delay
        self.process, self.state, self.last_exit, self.due = None, "down", exit_text, now + self.delay
        self.delay = min(self.delay * 2, LAST_DELAY)
        self.deaths = [*(at for at in self.deaths if now - at < SETTLED), now]
        self.restarts += 1

    @property
    def looping(self) -> bool:
        return len(self.deaths) >= LOOP

    def facts(self) -> dict[str, Any]:
        """What `doctor` and the record say."""
        pid = self.process.pid if self.process else None
        return {"state": self.state, "pid": pid, "restarts": self.restarts, "last_exit": self.last_exit}
