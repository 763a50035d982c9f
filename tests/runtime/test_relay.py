"""The relay by itself: whoever hangs up how, nothing is left, nothing is lost, and it rests when it is idle."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.runtime.process import control
from adapters.runtime.process.loop import READ, Loop
from adapters.runtime.process.relay import Relay
from tests.runtime.stage import until

RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # struct linger: closing resets


class Served:
    def __init__(self, path: Path, relay: Relay, loop: Loop) -> None:
        self.path, self.relay, self.loop = path, relay, loop

    def dial(self) -> socket.socket:
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(60)
        one.connect(str(self.path))
        return one


@pytest.fixture
def served(place: Path) -> Iterator[Served]:
    """A relay to a server that echoes what it hears; the first letter tells it to misbehave."""
    server = socket.create_server(("127.0.0.1", 0), backlog=512)
    serving = threading.Event()

    def accept() -> None:
        while not serving.is_set():
            one, _ = server.accept()
            threading.Thread(target=answer, args=(one,)).start()

    def answer(one: socket.socket) -> None:
        with one:
            try:
                first = one.recv(1 << 16)
                if first[:1] == b"r":
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    return
                if first[:1] == b"c":
                    return
                if first[:1] == b"h":
                    serving.wait(60)
                    return
                one.sendall(first)
                while data := one.recv(1 << 16):
                    one.sendall(data)
            except OSError:
                return

    accepting = threading.Thread(target=accept)
    accepting.start()
    loop = Loop()
    relay = Relay(loop, control.listen(str(place / "s"), 0o600), server.getsockname()[1])
    wake = socket.socketpair()

    def end(_: int) -> None:
        relay.close()
        loop.stop()

    loop.watch(wake[1].fileno(), READ, end)
    running = threading.Thread(target=loop.run)
    running.start()
    yield Served(place / "s", relay, loop)
    wake[0].send(b"x")
    running.join()
    for one in wake:
        one.close()
    serving.set()
    socket.create_connection(server.getsockname()).close()
    accepting.join()
    server.close()


def test_whoever_hangs_up_how(served: Served) -> None:
    chance = random.Random(7)

    def client(kind: int, seed: int) -> None:
        data = random.Random(seed).randbytes(100_000)
        with served.dial() as one:
            try:
                if kind == 0:  # echo, and half-close
                    sender = threading.Thread(target=lambda: (one.sendall(b"e" + data), one.shutdown(socket.SHUT_WR)))
                    sender.start()
                    heard = b""
                    while piece := one.recv(1 << 16):
                        heard += piece
                    sender.join()
                    wrong.extend([seed] if heard != b"e" + data else [])
                elif kind == 1:  # gone at once
                    return
                elif kind == 2:  # gone without listening
                    one.sendall(b"e" + data)
                else:  # the server goes
                    one.sendall(b"r" if kind == 3 else b"c")
                    while one.recv(1 << 16):
                        pass
            except OSError:
                wrong.extend([seed] if kind == 0 else [])

    wrong: list[int] = []
    threads = [threading.Thread(target=client, args=(chance.randrange(5), seed)) for seed in range(150)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    until(lambda: served.relay.connections == 0, "connections are left over")


def test_it_rests_while_an_answer_takes_its_time(served: Served) -> None:
    spent: list[float] = []
    with served.dial() as half, served.dial() as other:
        half.sendall(b"h")
        half.shutdown(socket.SHUT_WR)
        until(lambda: served.relay.connections == 2, "not accepted")
        served.loop.after(0.0, lambda: spent.append(time.thread_time()))
        served.loop.after(0.5, lambda: spent.append(time.thread_time()))
        other.sendall(b"e")  # timers are looked at when the loop comes round
        until(lambda: len(spent) == 2, "the loop stands still")
        assert spent[1] - spent[0] < 0.25, "it turns round and round"
        assert served.relay.connections == 2, "who has only closed a half still waits for the answer"
