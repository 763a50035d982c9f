"""The event log: numbered once, whatever is sent twice, killed or cut off."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from api.events import EventLog, Reader
from headway.broker import Event
from headway.errors import HeadwayError

JOB = "job_00000000000000000000000000"


def lines(*texts: str) -> list[Event]:
    return [Event(kind="log", ts="2026-06-24T14:31:20.114Z", stage="build", stream="stdout", line=t) for t in texts]


def texts(log: EventLog, after: int = 0) -> list[str]:
    reader = Reader(log.path(JOB), after=after)
    found: list[str] = []
    while some := reader.read(limit=64):
        found += [one["line"] for one in some if one["k"] == "log"]
    return found


def test_what_is_sent_twice_is_kept_once(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    assert log.append(JOB, "b/1", 1, lines("a", "b")) == 2
    assert log.append(JOB, "b/1", 1, lines("a", "b", "c")) == 1
    assert log.append(JOB, "b/1", 2, lines("b", "c")) == 0
    assert log.append(JOB, "b/2", 1, lines("d")) == 1
    assert texts(log) == ["a", "b", "c", "d"]
    assert log.lines(JOB) == 5


def test_a_new_process_goes_on_behind_a_torn_line(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.append(JOB, "b/1", 1, lines("a", "b"))
    log.mark(JOB, 3)
    with log.path(JOB).open("ab") as file:
        file.write(b'{"n":5,"k":"log","s":"b/1","i":3,"ts":"20')
    again = EventLog(tmp_path)
    assert again.append(JOB, "b/1", 2, lines("b", "c")) == 1
    assert texts(again) == ["a", "b", "c"]
    assert again.mark(JOB, 3) == 5
    assert again.mark(JOB, 4) == 6
    assert again.mark(JOB, 2) == 6
    numbers = [one["n"] for one in Reader(again.path(JOB)).read()]
    assert numbers == [1, 2, 3, 4, 5, 6]


def test_the_first_number_stands_for_the_job(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.append(JOB, "b/1", 1, lines("a"))
    assert Reader(log.path(JOB)).read()[0] == {"n": 1, "k": "job", "rev": 0}
    assert texts(log, after=2) == []


def test_a_reader_sees_whole_lines_alone(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    reader = Reader(log.path(JOB))
    assert reader.read() == []
    log.append(JOB, "b/1", 1, lines("x" * 5000))
    assert [one["k"] for one in reader.read(limit=100)] == ["job"]
    assert len(reader.read(limit=100)[0]["line"]) == 5000
    with log.path(JOB).open("ab") as file:
        file.write(b'{"n":3,')
    assert reader.read() == []


def test_threads_do_not_tear_lines(tmp_path: Path) -> None:
    log = EventLog(tmp_path)

    def send(source: str) -> None:
        for number in range(50):
            log.append(JOB, source, number + 1, lines(f"{source} {number}"))

    threads = [threading.Thread(target=send, args=(f"s/{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = texts(log)
    assert sorted(found) == sorted(f"s/{n} {m}" for n in range(8) for m in range(50))
    assert log.lines(JOB) == 401


def test_a_log_that_is_too_large_says_so_and_ends(tmp_path: Path) -> None:
    log = EventLog(tmp_path, max_bytes=2000)
    for number in range(100):
        log.append(JOB, "b/1", number + 1, lines("x" * 100))
    found = texts(log)
    assert found[-1].startswith("The log is too large")
    assert len(found) < 20
    assert EventLog(tmp_path, max_bytes=2000).append(JOB, "b/1", 101, lines("y")) == 1
    assert texts(log) == found
    assert log.mark(JOB, 9) > 0


@pytest.mark.parametrize("source", ["", "a b", 'x"', "x\n", "é", "x" * 200])
def test_odd_sources_are_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(HeadwayError, match="source"):
        EventLog(tmp_path).append(JOB, source, 1, lines("a"))


def test_a_job_id_is_no_path(tmp_path: Path) -> None:
    with pytest.raises(HeadwayError):
        EventLog(tmp_path).mark("../x", 1)


def test_a_reader_that_loads_late_cuts_nothing_that_is_being_written(tmp_path: Path) -> None:
    """What a reader may see of a write that is going on is neither counted nor cut."""
    log = EventLog(tmp_path)
    log.append(JOB, "b/1", 1, lines("a"))
    log.append(JOB, "b/1", 2, lines("b"))
    path = log.path(JOB)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    late = EventLog(tmp_path)
    assert late.lines(JOB) == 2
    assert path.read_bytes() == whole[:-5]
    path.write_bytes(whole)
    assert late.lines(JOB) == 3
    assert late.append(JOB, "b/1", 3, lines("c")) == 1
    assert texts(late) == ["a", "b", "c"]


def test_two_processes_give_one_numbering(tmp_path: Path) -> None:
    """Each knows what the other has written: nothing twice, no number twice, a stage that goes on."""
    one, two = EventLog(tmp_path), EventLog(tmp_path)
    for number in range(1, 21):
        for log in (one, two):
            log.append(JOB, "b/1", number, lines(f"line {number}"))
    assert texts(one) == [f"line {number}" for number in range(1, 21)]
    assert one.mark(JOB, 5) == two.mark(JOB, 5) == two.mark(JOB, 4) == 22
    assert one.lines(JOB) == two.lines(JOB) == 22
    assert [json.loads(line)["n"] for line in one.path(JOB).read_text().splitlines()] == list(range(1, 23))


def test_what_another_process_was_killed_in_is_dropped_by_the_next_writer(tmp_path: Path) -> None:
    one, two = EventLog(tmp_path), EventLog(tmp_path)
    one.append(JOB, "b/1", 1, lines("a"))
    two.append(JOB, "b/1", 2, lines("b"))
    with one.path(JOB).open("ab") as file:
        file.write(b'{"n":4,"k":"lo')
    assert one.append(JOB, "b/1", 2, lines("b", "c")) == 1
    assert texts(two) == ["a", "b", "c"]
    one.forget(JOB)
    assert two.append(JOB, "b/2", 1, lines("again")) == 1
    assert texts(one) == ["again"]
