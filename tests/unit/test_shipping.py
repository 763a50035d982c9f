"""A host's lines on their way: nothing twice, nothing lost while it is kept, across restarts of either side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from adapters.hosting import shipping
from adapters.hosting.shipping import Shipper
from adapters.runtime.driver import InstanceRef, LogLine, Status
from adapters.runtime.process import log
from adapters.runtime.process.log import LogWriter
from api.instance_logs import InstanceLogs, Wanted
from headway.broker import LogBatch, LogHeard
from headway.errors import HeadwayError

ENV = "env_01KVT00000000000000000000A"
WEB = InstanceRef(ENV, 1)


class Instances:
    """A driver's logs, written by the real writer. What of a driver the shipper does not use is not here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writers: dict[InstanceRef, LogWriter] = {}
        self.leaving: Callable[[InstanceRef], None] = lambda _: None
        self.read = 0
        self.counts_lines = True
        self.stretch = 1

    def print(self, *texts: str, ref: InstanceRef = WEB, limit: int = 1 << 20) -> None:
        if ref not in self.writers:
            place = self.folder / str(ref)
            place.mkdir(parents=True)
            self.writers[ref] = LogWriter(place, limit)
        for text in texts:
            self.writers[ref].feed("stdout", text.encode() + b"\n")

    def remove(self, ref: InstanceRef) -> None:
        self.leaving(ref)
        self.writers.pop(ref).close()
        for path in (self.folder / str(ref)).iterdir():
            path.unlink()
        (self.folder / str(ref)).rmdir()

    def list(self, env_id: str | None = None) -> list[Status]:
        return [Status(ref, "running") for ref in self.writers if env_id in (None, ref.env_id)]

    def logs(self, ref: InstanceRef, since: int = 0, limit: int = 1000) -> Iterator[LogLine]:
        for at, (number, ts, stream, text) in enumerate(log.read(self.folder / str(ref), since // self.stretch)):
            if at >= limit:
                return
            self.read += 1
            yield LogLine(number * self.stretch, ts, cast("Any", stream), text)


class Api:
    """The broker's side, on the real store of lines. `away` refuses; `deaf` keeps what came, and does not say so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.away = self.deaf = False
        self.asked = 0
        self.restart()

    def restart(self) -> None:
        self.logs = InstanceLogs(self.folder, 1 << 20)

    def ship_logs(self, env_id: str, batch: LogBatch) -> LogHeard:
        self.asked += 1
        if self.away:
            raise HeadwayError("service.unavailable", "away")
        if env_id != ENV:
            raise HeadwayError("environment.not_found", "gone")
        heard = [self.logs.hear(env_id, batch.host_id, one) for one in batch.instances]
        if self.deaf:
            raise HeadwayError("service.unavailable", "the answer was lost")
        return LogHeard(heard=heard)

    @property
    def lines(self) -> list[str]:
        return [line.text for line in self.logs.tail(ENV, 100_000, Wanted())[0]]


class Host:
    def __init__(self, tmp_path: Path) -> None:
        self.instances = Instances(tmp_path / "run")
        self.api = Api(tmp_path / "api")
        self.restart()

    def restart(self) -> None:
        self.shipper = Shipper("local", cast("Any", self.instances), self.api)
        self.instances.leaving = self.shipper.leaving


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_new_lines_are_sent_and_silence_costs_nothing(host: Host) -> None:
    host.instances.print("a", "b")
    host.shipper.look()
    host.instances.print("c")
    host.shipper.look()
    assert host.api.lines == ["a", "b", "c"]
    asked, read = host.api.asked, host.instances.read
    host.shipper.look()
    assert (host.api.asked, host.instances.read) == (asked, read)


@pytest.mark.parametrize("who", ["host", "api", "both"])
def test_a_restart_doubles_and_loses_nothing(host: Host, who: str) -> None:
    host.instances.print("a", "b")
    host.shipper.look()
    host.instances.print("c")
    if who in ("host", "both"):
        host.restart()
    if who in ("api", "both"):
        host.api.restart()
    host.instances.print("d")
    host.shipper.look()
    assert host.api.lines == ["a", "b", "c", "d"]


def test_lines_wait_while_the_api_is_away(host: Host) -> None:
    host.instances.print("a")
    host.api.away = True
    with pytest.raises(HeadwayError):
        host.shipper.look()
    host.instances.print("b")
    host.api.away = False
    host.shipper.look()
    assert host.api.lines == ["a", "b"]


def test_an_answer_that_was_lost_doubles_nothing(host: Host) -> None:
    host.instances.print("a")
    host.shipper.look()
    host.instances.print("b")
    host.api.deaf = True
    with pytest.raises(HeadwayError):
        host.shipper.look()
    host.instances.print("c")
    host.api.deaf = False
    host.shipper.look()
    assert host.api.lines == ["a", "b", "c"]


def test_the_last_words_of_an_instance_that_is_removed(host: Host) -> None:
    host.instances.print("a")
    host.shipper.look()
    host.instances.print("goodbye")
    host.api.away = True
    host.instances.remove(WEB)
    with pytest.raises(HeadwayError):
        host.shipper.look()
    host.api.away = False
    host.shipper.look()
    assert host.api.lines == ["a", "goodbye"]


def test_what_a_command_has_printed_is_its_jobs_alone(host: Host) -> None:
    ref = InstanceRef(ENV, 1, "run-01kvt")
    host.instances.print("name,card number", ref=ref)
    host.shipper.look()
    host.instances.remove(ref)
    host.shipper.look()
    assert host.api.lines == []


@pytest.mark.parametrize("restarted", [False, True])
def test_an_instance_that_was_made_anew_is_heard_from_its_beginning(host: Host, restarted: bool) -> None:
    host.instances.print("a", "b", "c")
    host.shipper.look()
    host.instances.remove(WEB)
    host.instances.print("A")
    if restarted:
        host.restart()
    host.shipper.look()
    host.instances.print("B", "C", "D", "E")
    host.shipper.look()
    assert host.api.lines == ["a", "b", "c", "A", "B", "C", "D", "E"]


def test_more_than_is_kept_is_noted(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "LINES", 100)
    host.instances.print(*(f"line {n}" for n in range(100)), limit=1 << 15)
    host.shipper.look()
    host.instances.print(*(f"{n:04d}{'x' * 200}" for n in range(2000)))
    host.shipper.look()
    kept = [number for number, *_ in log.read(host.instances.folder / str(WEB))]
    assert host.api.lines[100] == f"{kept[0] - 101} lines were dropped here: the app printed more than could be sent."
    assert len(host.api.lines) == 201
    for _ in range(len(kept) // 100 + 1):
        host.shipper.look()
    assert len(host.api.lines) == 101 + len(kept)


def test_a_noisy_instance_keeps_no_other_waiting(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "LINES", 10)
    quiet = InstanceRef(ENV, 1, "worker")
    host.instances.print(*map(str, range(1000)))
    host.instances.print("quiet", ref=quiet)
    host.shipper.look()
    assert host.api.lines == ["0", "1", "2", "3", "4", "quiet"]


def test_an_environment_that_is_gone_keeps_no_other_waiting(host: Host) -> None:
    host.instances.print("lost", ref=InstanceRef("env_01KVT000000000000000000000", 1))
    host.instances.print("a")
    host.shipper.look()
    host.shipper.look()
    assert host.api.lines == ["a"]


def test_following_reads_on_where_it_was(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, 1 << 16)
    place, since, seen = None, 0, list[int]()
    for batch in range(300):
        for at in range(batch % 7):
            writer.feed("stdout", f"{batch} {at} {'y' * 200}\n".encode())
        for item, end in [*log.read_on(tmp_path, since, place)]:
            since, place = item[0], end
            seen.append(since)
    assert seen == list(range(1, since + 1)), "a line is missing or doubled"
    assert since > 800


def test_a_place_that_leads_elsewhere_by_now_is_not_used(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, 1 << 20)
    writer.feed("stdout", b"one\ntwo\nthree\n")
    places = [place for _, place in log.read_on(tmp_path, 0, None)]
    wrong = log.Place(1, places[0].inode, places[1].offset)
    assert [item[3] for item, _ in log.read_on(tmp_path, 1, wrong)] == ["two", "three"]
    assert [item[3] for item, _ in log.read_on(tmp_path, 1, log.Place(1, 0, 5))] == ["two", "three"]


@pytest.mark.parametrize("who", ["host", "api", "both"])
def test_lines_that_are_numbered_by_their_time_come_once_and_leave_no_gaps(host: Host, who: str) -> None:
    host.instances.counts_lines, host.instances.stretch = False, 1_000
    host.instances.print("a", "b")
    host.shipper.look()
    host.instances.print("c")
    if who in ("host", "both"):
        host.restart()
    if who in ("api", "both"):
        host.api.restart()
    host.instances.print("d")
    host.shipper.look()
    host.shipper.look()
    assert host.api.lines == ["a", "b", "c", "d"]
