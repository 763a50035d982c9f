"""What hosts see of running environments: lines of apps, requests of visitors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from headway.broker.wire import Wire


class InstanceLines(Wire):
    """Lines of one instance, `(time, stream, text)`, numbered from `first` on. None: a question what was heard last.

    `numbers`, where there are any, are the lines' own: they grow, and a gap between two says nothing.
    """

    seq: int = Field(ge=0)
    process: str = Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")
    index: int = Field(ge=0)
    first: int = Field(default=1, ge=1)
    numbers: list[int] = Field(default=[], max_length=5_000)
    lines: list[tuple[str, Literal["stdout", "stderr", "system"], str]] = Field(default=[], max_length=5_000)


class LogBatch(Wire):
    """What instances of one environment on one host have printed. What was heard already is skipped."""

    host_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    instances: list[InstanceLines] = Field(max_length=500)


class LastHeard(Wire):
    """The number and time of an instance's last line that is kept; 0 where none is."""

    number: int
    ts: str


class LogHeard(Wire):
    """In the order of the batch."""

    heard: list[LastHeard]


class RequestMinute(Wire):
    """What was asked in one minute (Unix time / 60): `classes` counts by the status's first digit, 0 for none;
    `durations` by bucket of `headway.buckets`; `size` in bytes answered."""

    minute: int = Field(ge=0)
    classes: list[int] = Field(min_length=6, max_length=6)
    size: int = Field(ge=0)
    durations: dict[int, int] = Field(max_length=200)


class RequestLine(Wire):
    """One request, without its query."""

    ts: str = Field(max_length=40)
    hostname: str = Field(max_length=253)
    method: str = Field(max_length=32)
    path: str = Field(max_length=512)
    status: int
    duration_ms: float
    size: int


class RequestBatch(Wire):
    """What a host's web server was asked of one environment, up to a place in its log, places being ordered.

    `minutes` count all of it, `lines` are the last ones, `unlisted` is how many came before those. With nothing in it:
    a question what was heard last.
    """

    host_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    upto: tuple[float, int]
    minutes: list[RequestMinute] = Field(default=[], max_length=5_000)
    lines: list[RequestLine] = Field(default=[], max_length=1_000)
    unlisted: int = Field(default=0, ge=0)


class RequestsHeard(Wire):
    """The place up to which everything is counted; (0, 0) where nothing is."""

    upto: tuple[float, int]
