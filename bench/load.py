"""Requests at a fixed rate, each on a connection of its own, counted by what came back."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections import Counter
from multiprocessing.connection import Connection
from types import TracebackType

RATE = 300
TIMEOUT = 10.0


async def _one(port: int, hostname: str, known: tuple[str, ...]) -> str:
    """`ok`, or why the request failed: a refused or cut connection, a status, a body that no release holds."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"GET / HTTP/1.1\r\nHost: {hostname}\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
            answer = (await reader.read()).decode()
        finally:
            writer.close()
    except OSError as error:
        return type(error).__name__
    status = answer.split(" ", 2)[1] if answer.startswith("HTTP/1.1 ") else "no answer"
    if status != "200":
        return status
    return "ok" if any(text in answer for text in known) else "unknown body"


async def _load(port: int, hostname: str, known: tuple[str, ...], rate: int, end: Connection) -> dict[str, object]:
    counts: Counter[str] = Counter()
    slowest = 0.0

    async def ask() -> None:
        nonlocal slowest
        began = time.perf_counter()
        try:
            counts[await asyncio.wait_for(_one(port, hostname, known), TIMEOUT)] += 1
        except TimeoutError:
            counts["timeout"] += 1
        slowest = max(slowest, time.perf_counter() - began)

    began = time.perf_counter()
    running: set[asyncio.Task[None]] = set()
    sent = 0
    while not end.poll():
        due = int((time.perf_counter() - began) * rate)
        for _ in range(due - sent):
            task = asyncio.create_task(ask())
            running.add(task)
            task.add_done_callback(running.discard)
        sent = max(sent, due)
        await asyncio.sleep(0.001)
    took = time.perf_counter() - began
    await asyncio.gather(*running)
    return {"sent": sent, "seconds": took, "counts": dict(counts), "slowest_ms": round(slowest * 1000, 1)}


def _process(port: int, hostname: str, known: tuple[str, ...], rate: int, pipe: Connection) -> None:
    pipe.send(asyncio.run(_load(port, hostname, known, rate, pipe)))


class Load:
    """`with Load(port, hostname, known) as load: …` asks from its own process; `load.result` afterwards."""

    result: dict[str, object]

    def __init__(self, port: int, hostname: str, known: tuple[str, ...], *, rate: int = RATE) -> None:
        self.began = 0.0
        self._pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._child = context.Process(target=_process, args=(port, hostname, known, rate, theirs), daemon=True)

    def __enter__(self) -> Load:
        self._child.start()
        self.began = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.send("end")
        self.result = self._pipe.recv()
        self._child.join()
