"""Commands and starts on a host: so many at once, and no environment, or team, holds all of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from adapters.hosting import baking, host, services
from adapters.hosting.turns import Turns
from headway.errors import HeadwayError
from temporal import worker


class Waiter:
    """One command on a thread of its own: `began`, then until `end`."""

    def __init__(self, turns: Turns, env_id: str, log: list[str], name: str) -> None:
        self.end, self.told = threading.Event(), list[int]()

        def work() -> None:
            with turns.turn(env_id, self.told.append, lambda: None):
                log.append(name)
                self.end.wait(30)

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()


def until(good: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not good():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_whose_environment_runs_the_fewest_is_next() -> None:
    turns, log = Turns(at_once=2), list[str]()
    many = []
    for number in range(4):
        many.append(Waiter(turns, "many", log, f"many{number}"))
        until(lambda number=number: len(log) == number + 1 or many[number].told != [])  # type: ignore[misc]
    one = Waiter(turns, "one", log, "one")
    until(lambda: one.told != [])
    assert log == ["many0", "many1"]
    assert (many[2].told, many[3].told, one.told) == ([0], [1], [2])
    many[0].end.set()
    until(lambda: len(log) == 3)
    assert log[2] == "one"
    for waiter in (*many, one):
        waiter.end.set()
        waiter.thread.join(30)
    assert log[3:] == ["many2", "many3"]
    with turns.turn("other", lambda _ahead: pytest.fail("it is free"), lambda: None):
        pass


def test_too_many_and_too_long_are_said() -> None:
    turns = Turns(at_once=1, waiting=1, patience=0.01)
    with turns.counted("a"):
        with (
            pytest.raises(HeadwayError, match="has waited") as late,
            turns.turn("b", lambda _ahead: None, lambda: None),
        ):
            pass
        assert late.value.code == "host.busy"
    full = Turns(at_once=1, waiting=0)
    with full.counted("a"):
        with pytest.raises(HeadwayError, match="1 commands run") as much, full.turn("b", print, lambda: None):
            pass
        assert (much.value.code, much.value.retryable) == ("host.busy", False)


def test_who_is_stopped_while_waiting_leaves_the_line() -> None:
    turns = Turns(at_once=1)

    def stop() -> None:
        raise HeadwayError("job.canceled", "canceled")

    with turns.counted("a"), pytest.raises(HeadwayError, match="canceled"), turns.turn("b", lambda _ahead: None, stop):
        pass
    with turns.turn("c", lambda _ahead: pytest.fail("it is free"), lambda: None):
        pass


def test_one_environment_fills_no_room_that_others_wait_in() -> None:
    turns, log = Turns(at_once=1, waiting=3), list[str]()
    first = Waiter(turns, "many", log, "first")
    until(lambda: log == ["first"])
    refused: list[HeadwayError] = []
    ends = []
    for number in range(3):

        def work() -> None:
            try:
                with turns.turn("many", lambda _ahead: None, lambda: None):
                    pass
            except HeadwayError as error:
                refused.append(error)

        ends.append(threading.Thread(target=work, daemon=True))
        ends[-1].start()
        until(lambda number=number: len(turns._waiting) == number + 1)  # type: ignore[misc]
    with pytest.raises(HeadwayError, match="3 wait"), turns.turn("many", print, lambda: None):
        pass
    other = Waiter(turns, "other", log, "other")
    until(lambda: other.told != [] and len(refused) == 1)
    assert (refused[0].code, len(turns._waiting)) == ("host.busy", 3)
    first.end.set()
    until(lambda: "other" in log)
    other.end.set()
    for thread in ends:
        thread.join(30)
    assert len(refused) == 1


def test_one_has_its_share_of_the_places() -> None:
    turns, log = Turns(at_once=4, waiting=2, share=0.5, noun="releases", code="roll.host_busy"), list[str]()
    crowd = [Waiter(turns, "crowd", log, f"crowd{number}") for number in range(4)]
    until(lambda: len(log) == 2 and sum(one.told != [] for one in crowd) == 2)
    with pytest.raises(HeadwayError, match="2 releases run") as much, turns.turn("crowd", print, lambda: None):
        pass
    assert (much.value.code, much.value.retryable) == ("roll.host_busy", True)
    for other in ("one", "two"):
        with turns.turn(other, lambda _ahead: pytest.fail("half of the places are others'"), lambda: None):
            pass
    for waiter in crowd:
        waiter.end.set()
        waiter.thread.join(30)
    assert len(log) == 4


def test_a_hosts_lanes_have_room_for_all_that_waits_and_for_files_beside_it() -> None:
    assert worker.HOST_THREADS["starts"] >= services.STARTS + services.STARTS_WAIT + host.PLACES
    assert worker.HOST_THREADS["bakes"] >= baking.AT_ONCE + baking.WAITING
