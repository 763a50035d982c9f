"""One push, from the moment git has its objects: accept, start, tell, wait, and the verdict.

It talks to the hook over a socket that only this push's git has inherited. A pusher who goes away ends the telling and
nothing else.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from api.auth import Caller
from api.git.accepting import Accepting, Started
from api.git.commands import Command, Options, read_options, shown
from api.git.keeper import BranchKeeper
from api.git.parts import GitParts
from api.parts import Parts
from api.problems import as_headway_error
from headway.errors import HeadwayError
from store.models import Job, Site

MOST: Final = 4 << 20
_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?")
THROUGH: Final = "-"  # the hook's word for "git's own business"
Report = list[tuple[str, str | None]]
log = logging.getLogger("headway.git")


class PusherGone(Exception):
    """Nobody listens any more."""


@dataclass
class PushSession:
    """`on_hook` is called once git has everything: from then on the push waits for its deploy."""

    parts: Parts
    git: GitParts
    caller: Caller
    site: Site
    keeper: BranchKeeper
    on_hook: Callable[[], None]
    _reader: asyncio.StreamReader = field(init=False)
    _writer: asyncio.StreamWriter = field(init=False)

    async def run(self, sock: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=sock, limit=MOST)
        self._reader, self._writer = reader, writer
        try:
            line = await reader.readline()
            if not line:
                return  # git refused it by itself
            self.on_hook()
            asked = json.loads(line)
            report = await self._push([Command.of(words) for words in asked["commands"]], asked["options"])
            await self._tell({"report": report})
        except PusherGone:
            log.info("the pusher of %s is gone; what was accepted goes on", self.site.id)
        finally:
            writer.close()

    async def _push(self, commands: Sequence[Command], given: Sequence[str]) -> Report:
        try:
            options = read_options(given)
        except HeadwayError as error:
            return [(command.ref, reason(error)) for command in commands]
        report: dict[str, str | None] = {}
        started: list[tuple[Command, Started]] = []
        # Everything is accepted before anything is told: who hangs up stops none of it.
        for command in commands:
            if command.is_tag:
                report[command.ref] = THROUGH
                continue
            try:
                started.append((command, await self._accept(command, options)))
            except Exception as failure:
                refused = as_headway_error(failure)
                report[command.ref] = reason(refused)
                await self._say(f"{shown(command.ref)}: {refused.message}")
        for _, one in started:
            await self._announce(one)
        for command, one in started:
            report[command.ref] = await self._end(one, options)
        return [(command.ref, report[command.ref]) for command in commands]

    async def _accept(self, command: Command, options: Options) -> Started:
        accepting = Accepting(self.parts, self.git, self.caller, self.site)
        started = await anyio.to_thread.run_sync(accepting.accept, command, options)
        for job in started.accepted.canceled:
            await self.parts.starts.cancel(job.id)
        for job, labels in started.starts:
            await self.parts.starts.start(job.id, job.type, labels=labels)
        return started

    async def _announce(self, one: Started) -> None:
        push, environment, job = one.accepted.push, one.accepted.environment, one.accepted.job
        branch = shown(push.branch)
        if environment is None or job is None:
            await self._say(f"{branch} -> {'deleted' if push.new_sha is None else 'kept, not deployed'}")
            return
        named = " ".join(dict.fromkeys((environment.kind, environment.slug)))
        await self._say(f"{branch} -> {named} ({environment.id})")
        if push.new_sha is None:
            await self._say(f"the environment is deleted by {job.id}")
            return
        again = "is deployed already by" if one.accepted.attached else "queued"
        await self._say(f"{again} {(job.resource or {}).get('build_id')} / {job.id}")
        if (lost := one.displaced) is not None:
            await self._say(
                f"it takes the place of {(lost.new_sha or '')[:12]} ({lost.job_id}), which it does not have"
            )
        await self._say(one.url or "")

    async def _end(self, one: Started, options: Options) -> str | None:
        """The verdict on one ref: None is ok."""
        push, job, making = one.accepted.push, one.accepted.job, one.accepted.making
        if job is not None and not options.wait:
            await self._say(f"watch it: headway jobs watch {job.id}")
            return None
        try:
            if making is not None and (making := await self._follow(making)).status != "succeeded":
                return await self._failed(making)
            if job is not None:
                job = await self._follow(job)
                if job.status != "succeeded":
                    return await self._failed(job)
            moved = await anyio.to_thread.run_sync(self.keeper.settle, push.id)
            if job is not None and push.new_sha is not None:
                later = "" if moved else "; a later push has the branch"
                await self._say(f"live: {one.url}{later}")
            return None
        except HeadwayError as error:
            await self._say(error.message)
            return reason(error)

    async def _failed(self, job: Job) -> str:
        error = HeadwayError.from_dict(job.error or {"code": "internal.error", "message": f"It is {job.status}."})
        await self._say(f"{job.id} {job.status}: {error.message} [{error.code}]")
        return f"{job.id} {error.code}"

    async def _follow(self, job: Job) -> Job:
        """The job when it has ended; its log on the way. Raises push.held, and push.busy where it takes too long."""
        reader = self.parts.events.reader(job.id)
        until = time.monotonic() + self.git.patience
        async with self.parts.watch.on(job.id, 0) as changes:
            while True:
                job = await anyio.to_thread.run_sync(self._row, job.id)
                while lines := await anyio.to_thread.run_sync(reader.read):
                    for line in lines:
                        if line["k"] == "log":
                            await self._say(clean(line["line"]), prefix="")
                if job.finished_at is not None:
                    return job
                if job.waits_for is not None:
                    raise held(job)
                if self.parts.watch.closing or time.monotonic() > until:
                    raise HeadwayError("push.busy", f"{job.id} goes on, and the branch follows when it has succeeded.")
                await changes.wait(5.0)

    def _row(self, job_id: str) -> Job:
        with self.parts.store.read() as session:
            return session.get_one(Job, job_id)

    async def _say(self, text: str, *, prefix: str = "headway: ") -> None:
        await self._tell({"say": prefix + text})

    async def _tell(self, message: dict[str, Any]) -> None:
        if self._reader.at_eof():
            raise PusherGone
        try:
            self._writer.write(json.dumps(message).encode() + b"\n")
            await self._writer.drain()
        except (ConnectionError, RuntimeError):
            raise PusherGone from None


def held(job: Job) -> HeadwayError:
    """People decide when it goes on: nobody's terminal waits for that."""
    reasons = " ".join(str(one.get("message", "")) for one in (job.waits_for or {}).get("reasons", ()))
    return HeadwayError("push.held", f"{job.id} is held: {reasons} The branch follows when it has succeeded.")


def reason(error: HeadwayError) -> str:
    """What stands in brackets behind a rejected ref: one line."""
    return f"{error.code}: {shown(error.message)}"


def clean(line: str) -> str:
    """A line of a stranger's build, for a terminal: no escapes, no controls."""
    return "".join(one for one in _ESCAPES.sub("", line) if one.isprintable() or one == "\t")
