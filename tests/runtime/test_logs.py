"""Logs of instances: numbered, bounded, readable while they are written, and without a secret in them."""

from __future__ import annotations

import base64
import errno
import json
import os
import threading
from pathlib import Path

import pytest

from adapters.redaction import Redactor
from adapters.runtime.process import log
from adapters.runtime.process.driver import ProcessDriver, Setup
from tests.runtime.conftest import QUICK
from tests.runtime.stage import Stage, until

SECRET = "hunter2-/+é-long-enough"
LONG_SECRET = "Zq8-canary-0123456789-abcdefghijklm"
PEM = "-----BEGIN KEY-----\nMIIBVwIBADANBgkqhkiG9w0BAQ\n-----END KEY-----"
OPENER = "tests.runtime.opener:open_plain"


@pytest.fixture
def sealed(box: Stage, place: Path) -> Path:
    path = place / "sealed.json"
    path.write_text(json.dumps({"TOKEN": SECRET, "PEM": PEM}))
    path.chmod(0o600)
    return path


@pytest.fixture
def keyed(box: Stage, place: Path) -> Stage:
    (place / "host.key").write_text("key")
    driver = ProcessDriver(Setup(place / "state", pace=QUICK, key_file=place / "host.key", opener=OPENER))
    return Stage(driver, box.tree)


def test_a_secret_reaches_the_app_and_nothing_else(keyed: Stage, sealed: Path, place: Path) -> None:
    ref = keyed.serve(sealed=sealed)
    try:
        env = json.loads(keyed.get(ref, "/env"))
        assert (env["TOKEN"], env["PEM"]) == (SECRET, PEM)
        keyed.get(ref, "/secrets", names="TOKEN,PEM")
        keyed.until_line(ref, "within")
        until(lambda: len([line for line in keyed.lines(ref) if "redacted]" in line]) >= 6, str(keyed.lines(ref)))
        hidden = [SECRET, "MIIBVwIBADANBgkqhkiG9w0BAQ", base64.b64encode(SECRET.encode()).decode()[:-4]]
        text = "\n".join(keyed.lines(ref))
        assert not [form for form in hidden if form in text]
        for path in (place / "state").rglob("*"):
            if path.is_file():
                assert SECRET.encode() not in path.read_bytes(), path
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                assert SECRET.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
    finally:
        keyed.driver.remove(ref)


def test_plain_variables_stand_in_the_log_as_they_are(keyed: Stage, sealed: Path) -> None:
    sealed.write_text(json.dumps({"TOKEN": SECRET, "LEVEL": "info", "HEADWAY_SHOWN": "LEVEL"}))
    ref = keyed.serve(sealed=sealed)
    try:
        env = json.loads(keyed.get(ref, "/env"))
        assert env["LEVEL"] == "info"
        assert "HEADWAY_SHOWN" not in env
        keyed.get(ref, "/print", text=f"info {SECRET}")
        assert keyed.until_line(ref, "info ") == "info [TOKEN redacted]"
    finally:
        keyed.driver.remove(ref)


def test_a_secret_is_opened_anew_at_each_start(keyed: Stage, sealed: Path) -> None:
    ref = keyed.serve(sealed=sealed)
    try:
        sealed.write_text(json.dumps({"TOKEN": "another-value"}))
        with pytest.raises((OSError, Exception)):
            keyed.get(ref, "/die")
        until(lambda: keyed.driver.status(ref).restarts >= 1 and keyed.answers(ref), "not started again")
        assert json.loads(keyed.get(ref, "/env"))["TOKEN"] == "another-value"
    finally:
        keyed.driver.remove(ref)


def test_a_configuration_that_cannot_be_opened_is_the_reason(keyed: Stage, sealed: Path, place: Path) -> None:
    (place / "host.key").unlink()
    ref = keyed.start(sealed=sealed)
    try:
        status = keyed.until_state(ref, "backoff", "crash_loop")
        assert "the key is not there" in status.reason
        (place / "host.key").write_text("key")
        until(lambda: keyed.answers(ref), "it is not tried again")
    finally:
        keyed.driver.remove(ref)


def test_a_log_is_rotated_and_read_while_it_is_written(box: Stage) -> None:
    ref = box.serve(limits={"log": 64 << 10})
    stop, seen = threading.Event(), list[int]()

    def follow() -> None:
        since = 0
        while not stop.is_set():
            for line in box.driver.logs(ref, since):
                seen.append(line.number)
                since = line.number

    reader = threading.Thread(target=follow)
    reader.start()
    box.get(ref, "/print", text="y" * 80, times=5000)
    box.get(ref, "/print", text="the last")
    box.until_line(ref, "the last")
    stop.set()
    reader.join()
    assert seen == sorted(set(seen))
    folder = box.driver._places.folder(ref)  # type: ignore[attr-defined]
    kept = sorted(path.name for path in folder.glob("log*"))
    assert kept == ["log", "log.1", "log.2"]
    assert all((folder / name).stat().st_size <= 64 << 10 for name in kept)
    numbers = [line.number for line in box.driver.logs(ref, limit=10_000)]
    assert numbers == list(range(numbers[0], numbers[-1] + 1)), "lines are missing in the middle"


def test_binary_is_escaped_and_long_lines_are_cut(box: Stage) -> None:
    ref = box.serve()
    box.get(ref, "/binary")
    box.get(ref, "/print", text="on stderr", stream="stderr")
    assert box.until_line(ref, "bin ") == r"bin \xff\x00\x07 end"
    cut = box.until_line(ref, "bytes cut")
    assert cut == "x" * log.LONGEST + f" … ({50_000 - log.LONGEST} bytes cut)"
    box.until_line(ref, "on stderr", "stderr")


def test_the_end_of_a_log_is_found_without_reading_all_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = log.LogWriter(tmp_path, 0)
    for number in range(1, 801):
        writer.say(f"{number} {'x' * 100}")
    writer.close()
    kept = [number for number, *_ in log.read(tmp_path)]
    assert len(list(tmp_path.iterdir())) == log.KEEP
    read, really = list[bytes](), json.loads

    def loads(line: bytes) -> object:
        read.append(line)
        return really(line)

    monkeypatch.setattr(json, "loads", loads)
    for since in (0, kept[0] - 1, kept[0], kept[250], 799, 800, 900):
        read.clear()
        wanted = [number for number in kept if number > since]
        assert [number for number, *_ in log.read(tmp_path, since)] == wanted
        assert len(read) == len(wanted)


def test_a_line_half_written_by_a_killed_writer_is_skipped(tmp_path: Path) -> None:
    writer = log.LogWriter(tmp_path, 1 << 20)
    writer.feed("stdout", b"one\ntwo\n")
    writer.close()
    with (tmp_path / "log").open("ab") as file:
        file.write(b'[3,"2026-01-01T00:00:00.000Z","stdo')
    writer = log.LogWriter(tmp_path, 1 << 20)
    writer.feed("stdout", b"three\nunfinished")
    writer.close()
    assert [(number, text) for number, _, _, text in log.read(tmp_path)] == [
        (1, "one"), (2, "two"), (3, "three"), (4, "unfinished"),
    ]  # fmt: skip


def test_a_disk_without_room_for_another_file_ends_no_keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full, really = True, os.open

    def opened(path: Path, flags: int, mode: int = 0o777) -> int:
        if full and flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, "No space left on device")
        return really(path, flags, mode)

    writer = log.LogWriter(tmp_path, 0)
    monkeypatch.setattr(os, "open", opened)
    for number in range(1_000):
        writer.say(f"{number} {'x' * 100}")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 64_000
    full = False
    writer.say("there is room again")
    writer.close()
    kept = [(number, text) for number, _, _, text in log.read(tmp_path)]
    assert kept[0][1].startswith("0 ")
    assert kept[-1] == (len(kept), "there is room again"), "lines are numbered without gaps"


def test_a_secret_that_stands_across_the_cut_is_found(tmp_path: Path) -> None:
    writer = log.LogWriter(tmp_path, 1 << 20)
    writer.hide({"TOKEN": SECRET})
    for piece in (b"x" * (log.LONGEST - 5), SECRET.encode()[:7], SECRET.encode()[7:], b"y" * 9000, b"\n"):
        writer.feed("stdout", piece)
    writer.close()
    ((_, _, _, text),) = log.read(tmp_path)
    assert "hunt" not in text


@pytest.mark.parametrize("times", range(250, 260))
def test_no_part_of_a_secret_comes_into_view_where_many_are_taken_out(tmp_path: Path, times: int) -> None:
    """What stands for them is shorter than they are: the line that is kept ended in the middle of one."""
    writer = log.LogWriter(tmp_path, 1 << 20)
    writer.hide({"TOKEN": LONG_SECRET})
    writer.feed("stdout", LONG_SECRET.encode() * times + b"\n")
    writer.close()
    ((_, _, _, text),) = log.read(tmp_path)
    assert text.startswith("[TOKEN redacted]")
    assert LONG_SECRET[:8] not in text


@pytest.mark.parametrize("size", [7, 64, 1 << 16])
def test_what_is_broken_over_lines_is_hidden(tmp_path: Path, size: int) -> None:
    writer = log.LogWriter(tmp_path, 1 << 20)
    writer.hide({"TOKEN": LONG_SECRET * 3})
    printed = b"it is\n" + base64.encodebytes(LONG_SECRET.encode() * 3) + b"and no more\n"
    for at in range(0, len(printed), size):
        writer.feed("stdout", printed[at : at + size])
    writer.close()
    lines = [text for _, _, _, text in log.read(tmp_path)]
    assert (lines[0], lines[-1]) == ("it is", "and no more")
    assert "".join(lines[1:-1]).strip("=") == "[TOKEN redacted]"


def test_a_line_that_may_be_half_a_secret_does_not_wait_for_ever(tmp_path: Path) -> None:
    writer = log.LogWriter(tmp_path, 1 << 20)
    writer.hide({"TOKEN": LONG_SECRET})
    writer.feed("stdout", f"listens on {LONG_SECRET[:6]}\n".encode())
    seen = []
    for _ in range(2):
        writer.settle()
        seen.append([text for _, _, _, text in log.read(tmp_path)])
    assert seen == [[], [f"listens on {LONG_SECRET[:6]}"]]
    writer.feed("stdout", f"and {LONG_SECRET[:6]}".encode())
    for _ in range(3):
        writer.settle()
    writer.feed("stdout", LONG_SECRET[6:].encode() + b"\n")
    writer.close()
    assert [text for _, _, _, text in log.read(tmp_path)][1:] == ["and [TOKEN redacted]"]


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
def test_base64_is_found_wherever_it_stands(before: str) -> None:
    encoded = base64.b64encode(f"{before}{SECRET}:x".encode())
    cleaned = Redactor([SECRET]).hide(b"say " + encoded)
    assert b"[redacted]" in cleaned
    left = cleaned.replace(b"[redacted]", b"").removeprefix(b"say ")
    assert len(left) <= 12, left


def test_short_values_are_left_alone() -> None:
    assert Redactor(["1", "no", ""]).hide(b"10 no") == b"10 no"
    assert Redactor([]).hide(b"abc") == b"abc"
