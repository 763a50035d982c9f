"""Following a job: a live line on a terminal, plain lines elsewhere; always on stderr, the result on stdout."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import click

from headway.cli.output import advice, clean, print_fields, print_json, say

if TYPE_CHECKING:
    from headway.cli.session import Session
    from headway.resources import Job

HELD = 3
TIMED_OUT = 124
INTERRUPTED = 130


class View(Protocol):
    def job(self, job: Job) -> None: ...

    def line(self, stage: str, text: str) -> None: ...


def show_started(session: Session, job: Job) -> None:
    if session.as_json:
        print_json(job.as_dict())
        return
    print_fields(
        {"job": job.id, "type": job.type, "status": job.status, job.resource.get("type", "resource"): _id(job)}
    )
    say(f"Watch it: {session.program} jobs watch {job.id}")


def follow(session: Session, job_id: str, *, timeout: float | None, through_holds: bool = False) -> int:
    """Wait for the end of a job; the exit code. Ctrl-C and a timeout stop the waiting, not the job.

    A job that is held waits for people: unless told otherwise, nobody waits for them here.
    """
    from headway.client import WaitTimeout

    last: Job | None = None
    try:
        with _view() as view:
            for event in session.client.jobs.stream(job_id, timeout=timeout):
                if event.job is not None:
                    last = event.job
                    view.job(last)
                    if last.held and not through_holds:
                        return show_held(session, last)
                if event.line is not None:
                    view.line(clean(event.line.get("stage") or ""), clean(event.line.get("line") or ""))
        if last is None or not last.ended:
            last = session.client.jobs.get(job_id)
    except KeyboardInterrupt:
        say(f"Stopped waiting; {job_id} goes on. Watch it again: {session.program} jobs watch {job_id}")
        return INTERRUPTED
    except WaitTimeout as error:
        say(f"{session.program}: {error} Watch it again: {session.program} jobs watch {job_id}")
        if session.as_json and last is not None:
            print_json(last.as_dict())
        return TIMED_OUT
    return show_ended(session, last)


def show_held(session: Session, job: Job) -> int:
    waits_for = job.waits_for or {}
    if session.as_json:
        print_json(job.as_dict())
    else:
        print_fields({"job": job.id, "type": job.type, "status": "held", "deployment": waits_for.get("deployment_id")})
    for reason in waits_for.get("reasons", ()):
        say(f"{session.program}: held: {clean(reason.get('message', ''))}")
    say(f"  It goes on by itself. Watch it: {session.program} jobs watch {job.id}")
    return HELD


def show_ended(session: Session, job: Job) -> int:
    if session.as_json:
        print_json(job.as_dict())
    else:
        result = dict(job.result or {})
        promoted = result.pop("promoted", None)
        print_fields({"job": job.id, "type": job.type, "status": job.status, **result})
        if promoted:
            release = f"{promoted.get('environment')} release {promoted.get('sequence')}"
            click.echo(clean(f"the same bytes as {release} ({result.get('digest')})"))
    if job.status == "succeeded":
        return 0
    error = job.error or {}
    code = str(error.get("code", job.status))
    say(f"{session.program}: {clean(error.get('message') or f'The job ended {job.status}.')} [{clean(code)}]")
    if text := advice(code):
        say(f"  {text}")
    say(f"  {job.resource.get('type', 'job')} {clean(_id(job))}, {job.id}")
    return 1


def _id(job: Job) -> Any:
    return job.resource.get("id", "")


def _marked(stage: str) -> str:
    return f"{stage} | " if stage else "| "


@contextlib.contextmanager
def _view() -> Iterator[View]:
    if not sys.stderr.isatty():
        yield PlainView()
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    with Live(console=console, refresh_per_second=8, transient=True) as live:
        yield LiveView(console, live)


class PlainView:
    """A line per stage and per line of the log, for files and CI."""

    def __init__(self) -> None:
        self._told = ""

    def job(self, job: Job) -> None:
        told = f"{job.status} {job.stage}" if job.stage and not job.ended else job.status
        if told != self._told:
            self._told = told
            say(f"{job.id}  {clean(told)}")

    def line(self, stage: str, text: str) -> None:
        say(f"  {_marked(stage)}{text}")


class LiveView:
    """The log scrolls by above one line: spinner, status, stage, progress, seconds."""

    def __init__(self, console: Any, live: Any) -> None:
        from rich.progress_bar import ProgressBar
        from rich.spinner import Spinner
        from rich.table import Table

        self._console, self._live = console, live
        self._bar = ProgressBar(total=100, width=24)
        self._spinner = Spinner("dots")
        self._table = Table
        self._began = time.monotonic()
        self._job: Job | None = None
        live.update(self)

    def job(self, job: Job) -> None:
        self._job = job
        self._bar.update(job.progress)

    def line(self, stage: str, text: str) -> None:
        self._console.print(f"{_marked(stage)}{text}", markup=False, soft_wrap=True, style="dim")

    def __rich__(self) -> Any:
        grid = self._table.grid(padding=(0, 1))
        job = self._job
        what = clean(f"{job.type} {job.stage or job.status}") if job else "connecting"
        grid.add_row(self._spinner, what, self._bar, f"{time.monotonic() - self._began:.0f} s", job.id if job else "")
        return grid
