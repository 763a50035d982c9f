"""`headway run`: a one-off command; its output is this command's output, and its exit code this command's."""

from __future__ import annotations

import array
import fcntl
import os
import shlex
import stat
import sys
import termios

import click

from headway.cli.output import clean, print_json, say
from headway.cli.session import Duration, Session, connected, env_option, site_option
from headway.cli.waiting import INTERRUPTED, TIMED_OUT, show_ended
from headway.resources import Job


@click.command(context_settings={"ignore_unknown_options": True})
@site_option
@env_option
@click.option("--limit", type=Duration(), default=600.0, help="Kill it after this time (default 10m, at most 1h).")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@connected(writes=True)
def run(session: Session, site: str, env: str, limit: float, command: tuple[str, ...]) -> int:
    """Run a command once, beside what an environment serves: the same release, configuration, volumes and walls.

    Ctrl-C cancels it. A pipe or a variable needs a shell of its own: -- sh -c 'echo $PORT'. Its standard input is
    empty.
    """
    from headway.client import WaitTimeout

    if _is_given(0):
        say("The command's standard input is empty: what this one is given is not passed on.")
    where, found = session.place(site, env)
    job = session.client.environments.run(
        where.id, found.id, shlex.join(command), timeout=round(limit), idempotency_key=session.key
    )
    try:
        return _ended(session, _followed(session, job))
    except KeyboardInterrupt:
        session.client.jobs.cancel(job.id)
        say(f"Canceled {job.id}.")
        return INTERRUPTED
    except WaitTimeout as error:
        say(f"{session.program}: {error}")
        return TIMED_OUT


def _is_given(descriptor: int) -> bool:
    """Whether a file or a pipe holds something to read; nothing is taken out of it."""
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return os.fstat(descriptor).st_size > os.lseek(descriptor, 0, os.SEEK_CUR)
        waiting = array.array("i", [0])
        return stat.S_ISFIFO(mode) and fcntl.ioctl(descriptor, termios.FIONREAD, waiting) == 0 and waiting[0] > 0
    except OSError:
        return False


def _followed(session: Session, job: Job) -> Job:
    last = job
    for event in session.client.jobs.stream(job.id):
        last = event.job or last
        if event.line is not None and event.line.get("stream") in ("stdout", "stderr", "system"):
            to = sys.stdout if event.line["stream"] == "stdout" and not session.as_json else sys.stderr
            print(clean(event.line.get("line") or ""), file=to, flush=True)
    return last if last.ended else session.client.jobs.get(job.id)


def _ended(session: Session, job: Job) -> int:
    if job.status != "succeeded":
        return show_ended(session, job)
    if session.as_json:
        print_json(job.as_dict())
    return int((job.result or {}).get("exit_code", 1))
