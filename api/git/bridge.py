"""The bridge from ASGI to git's `http-backend`: both directions stream, and a client that hangs up ends its git."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from api.gate import Receive, Send
from api.git.body import Gone

CHUNK: Final = 64 << 10
# How long git has to clean up after itself before it is killed.
GRACE: Final = 5.0


@dataclass
class Bridge:
    """One run of `http-backend`."""

    process: asyncio.subprocess.Process
    gone: bool = False

    @classmethod
    async def open(cls, argv: Sequence[str], env: Mapping[str, str], fds: Sequence[int] = ()) -> Bridge:
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=dict(env),
            cwd="/",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=tuple(fds),
            start_new_session=True,
            limit=CHUNK,
        )
        return cls(process)

    async def carry(self, pieces: AsyncIterator[bytes], receive: Receive, send: Send, *, deadline: float) -> None:
        """The request in, the answer out. `deadline` (seconds) is for all of it."""
        feeding = asyncio.create_task(self._feed(pieces, receive))
        try:
            async with asyncio.timeout(deadline):
                await self._answer(send)
        except TimeoutError:
            await self.kill()
            raise
        finally:
            feeding.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await feeding
            await self.kill()

    async def _feed(self, pieces: AsyncIterator[bytes], receive: Receive) -> None:
        """Everything of the request; then wait for the client to hang up."""
        stdin = self.process.stdin
        assert stdin is not None  # noqa: S101
        try:
            async for piece in pieces:
                # Where git takes no more it has said why: the rest is read and forgotten, so that this is heard.
                with contextlib.suppress(ConnectionError, RuntimeError):
                    stdin.write(piece)
                    await stdin.drain()
            stdin.close()
            while (await receive())["type"] != "http.disconnect":
                pass
        except Gone:
            pass
        except Exception:
            await self.kill()
            raise
        self.gone = True
        await self.kill()

    async def _answer(self, send: Send) -> None:
        """The head of a CGI answer, then its body as it comes."""
        stdout = self.process.stdout
        assert stdout is not None  # noqa: S101
        status, headers = 200, []
        while line := (await stdout.readline()).rstrip(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"status":
                status = int(value.split()[0])
            else:
                headers.append((name.lower(), value.strip()))
        if not headers:
            status = 500
        await send({"type": "http.response.start", "status": status, "headers": headers})
        while chunk := await stdout.read(CHUNK):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def kill(self) -> None:
        """End git and what it started: kindly, then for good."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.process.returncode is not None:
                return
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), GRACE)
