"""A job's stream: what is said while somebody works at it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from headway.broker.wire import Wire


class Event(Wire):
    """`log`: one line; `stage`: a step began; `progress`: 0–100. `ts` is RFC 3339, UTC, milliseconds."""

    kind: Literal["log", "stage", "progress"]
    ts: str
    stage: str | None = None
    stream: Literal["stdout", "stderr", "system"] | None = None
    line: str | None = None
    progress: int | None = None


class Events(Wire):
    """A batch. `(source, first + i)` numbers each event: what was already appended is skipped."""

    source: str
    first: int = Field(ge=1)
    events: list[Event]


class LastWords(Wire):
    """A batch for a job, sent along with something else."""

    job_id: str
    events: Events


class Heard(Wire):
    """`cancel`: somebody asked for the job's end."""

    cancel: bool
