"""What `headway run` takes of its standard input."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import click
import pytest

from headway.cli import run
from headway.cli.run import pieces_of


def test_a_pipe_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "PIECE", 4)
    reader, writer = os.pipe()
    os.write(writer, b"\x00\xffsome\r\n!")
    os.close(writer)
    assert [*pieces_of(reader)] == [b"\x00\xffso", b"me\r\n", b"!"]
    os.close(reader)


def test_a_file_is_read_from_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text("one two")
    with path.open("rb", buffering=0) as file:
        file.read(4)
        assert [*pieces_of(file.fileno())] == [b"two"]


def test_one_that_does_not_block_is_waited_for() -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    later = threading.Timer(0.1, lambda: (os.write(writer, b"late"), os.close(writer)))
    later.start()
    assert [*pieces_of(reader)] == [b"late"]
    later.join()
    os.close(reader)


def test_what_is_nothing_gives_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with open(os.devnull, "rb") as none:
        assert [*pieces_of(none.fileno())] == []
    controller, terminal = os.openpty()
    assert [*pieces_of(terminal)] == []
    os.close(controller)
    os.close(terminal)
    assert capsys.readouterr().err == ""


def test_a_pipe_that_says_nothing_is_waited_for_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "SILENCE_MS", 1)
    reader, writer = os.pipe()
    said = threading.Event()
    heard: list[str] = []
    monkeypatch.setattr(run, "say", lambda text: (heard.append(text), said.set()))
    closing = threading.Thread(target=lambda: (said.wait(60), os.close(writer)))
    closing.start()
    assert [*pieces_of(reader)] == []
    closing.join()
    os.close(reader)
    assert "--no-input" in heard[0]


def test_what_cannot_be_read_is_no_end(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(click.FileError):
        [*pieces_of(folder)]
    os.close(folder)
