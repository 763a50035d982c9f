"""`headway run`: a one-off command; its output is this command's output, and its exit code this command's."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import sys
from collections.abc import Iterator
from typing import Final

import click

from headway.cli.output import for_reader, print_json, say
from headway.cli.session import Duration, Session, connected, env_option, site_option
from headway.cli.waiting import INTERRUPTED, TIMED_OUT, show_ended
from headway.resources import Job

PIECE: Final = 8 << 20
SILENCE_MS: Final = 3000


@click.command(context_settings={"ignore_unknown_options": True})
@site_option
@env_option
@click.option("--limit", type=Duration(), default=600.0, help="Kill it after this time (default 10m, at most 1h).")
@click.option("--no-input", "-n", is_flag=True, help="Give it none of this standard input, and read none of it.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@connected(writes=True)
def run(session: Session, site: str, env: str, limit: float, no_input: bool, command: tuple[str, ...]) -> int:
    """Run a command once, beside what an environment serves: the same release, configuration, volumes and walls.

    A file or a pipe on the standard input is given to the command, which begins when all of it is there; a terminal is
    not. Ctrl-C cancels it. A pipe or a variable inside needs a shell of its own: -- sh -c 'echo $PORT'.
    """
    from headway.client import WaitTimeout

    where, found = session.place(site, env)
    try:
        input_id = None if no_input else _given(session, where.id, found.id)
    except KeyboardInterrupt:
        say("Nothing was run: the command's input had not ended.")
        return INTERRUPTED
    job = session.client.environments.run(
        where.id, found.id, shlex.join(command), timeout=round(limit), input_id=input_id, idempotency_key=session.key
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


def _given(session: Session, site_id: str, env_id: str) -> str | None:
    """The id of what stands on this standard input, sent; None for a terminal, and where there is nothing."""
    # Where it was closed at the start, the number may be somebody else's by now.
    pieces = pieces_of(0) if sys.stdin is not None else iter(())
    first = next(pieces, None)
    if first is None:
        return None

    def all_of_it() -> Iterator[bytes]:
        yield first
        yield from pieces

    return session.client.environments.give_input(site_id, env_id, all_of_it())


def pieces_of(descriptor: int) -> Iterator[bytes]:
    """What is read there to its end, `PIECE` bytes at a time; nothing of a terminal."""
    try:
        if os.isatty(descriptor):
            return
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        if not waiting.poll(SILENCE_MS):
            say("Reading the standard input to its end; with --no-input the command is given none of it.")
        piece = bytearray()
        while data := _read(descriptor, PIECE - len(piece), waiting):
            piece += data
            if len(piece) == PIECE:
                yield bytes(piece)
                piece.clear()
        if piece:
            yield bytes(piece)
    except OSError as error:
        raise click.FileError("standard input", error.strerror) from None


def _read(descriptor: int, most: int, waiting: select.poll) -> bytes:
    while True:
        waiting.poll()
        with contextlib.suppress(BlockingIOError):  # whoever gave it may have set it so
            return os.read(descriptor, most)


def _followed(session: Session, job: Job) -> Job:
    last = job
    for event in session.client.jobs.stream(job.id):
        last = event.job or last
        if event.line is not None and event.line.get("stream") in ("stdout", "stderr", "system"):
            to = sys.stdout if event.line["stream"] == "stdout" and not session.as_json else sys.stderr
            print(for_reader(event.line.get("line") or "", to), file=to, flush=True)
    return last if last.ended else session.client.jobs.get(job.id)


def _ended(session: Session, job: Job) -> int:
    if job.status != "succeeded":
        return show_ended(session, job)
    if session.as_json:
        print_json(job.as_dict())
    return int((job.result or {}).get("exit_code", 1))
