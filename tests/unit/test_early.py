"""What was begun before its activity came is done once, and joined."""

from __future__ import annotations

import threading
import time

import pytest

from activities import early
from activities.early import Early
from headway.errors import HeadwayError
from temporal.messages import Live, Taken

DONE = Taken("dep_1", Live("local", "env_1", 3, 1))


def keep_on() -> None:
    """Nobody cancels."""


def test_it_is_done_once_and_joined_once() -> None:
    asked: list[str] = []

    def carry_out(job_id: str) -> Taken:
        asked.append(job_id)
        return DONE

    made = Early(carry_out)
    for _ in range(2):
        made.begin("job_1")
    assert (asked, made.join("job_1", keep_on), made.join("job_1", keep_on)) == (["job_1"], DONE, Taken())


def test_what_its_activity_is_at_is_not_begun_beside_it() -> None:
    asked: list[str] = []

    def carry_out(job_id: str) -> Taken:
        asked.append(job_id)
        return DONE

    made = Early(carry_out)
    assert made.join("job_1", keep_on) == Taken(), "nobody has begun"
    made.begin("job_1")
    assert (asked, made.join("job_1", keep_on)) == ([], Taken())


def test_who_joins_waits_for_what_is_under_way_and_may_be_stopped() -> None:
    goes_on, stopped = threading.Event(), HeadwayError("job.canceled", "canceled")

    def carry_out(_job_id: str) -> Taken:
        assert goes_on.wait(30)
        return DONE

    made = Early(carry_out)
    begun = threading.Thread(target=made.begin, args=("job_1",))
    begun.start()
    while "job_1" not in made._begun:
        time.sleep(0.01)

    def open_and_go_on() -> None:
        goes_on.set()

    assert made.join("job_1", open_and_go_on) == DONE
    begun.join()
    goes_on.clear()
    other = threading.Thread(target=made.begin, args=("job_2",))
    other.start()
    while "job_2" not in made._begun:
        time.sleep(0.01)

    def stop() -> None:
        raise stopped

    with pytest.raises(HeadwayError, match="canceled"):
        made.join("job_2", stop)
    goes_on.set()
    other.join()


def test_what_went_wrong_is_left_to_the_run() -> None:
    def carry_out(_job_id: str) -> Taken:
        raise HeadwayError("roll.disk_floor", "full")

    made = Early(carry_out)
    made.begin("job_1")
    assert made.join("job_1", keep_on) == Taken()


def test_what_nobody_joins_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "MOST_KEPT", 2)
    made = Early(lambda _: DONE)
    for number in range(4):
        made.begin(f"job_{number}")
    assert [made.join(f"job_{n}", keep_on) for n in (3, 2, 1, 0)] == [DONE, DONE, Taken(), Taken()]
    assert len(made._begun) == 2
