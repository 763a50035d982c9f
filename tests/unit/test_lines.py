from __future__ import annotations

from hypothesis import given, seed, settings
from hypothesis import strategies as st

from activities.producing.lines import MAX_LINE, LineSplitter


def split(*chunks: bytes) -> list[str]:
    said: list[str] = []
    splitter = LineSplitter(lambda _stream, line: said.append(line))
    for chunk in chunks:
        splitter.feed("stdout", chunk)
    splitter.flush()
    return said


def test_lines_in_any_cut() -> None:
    assert split(b"on", b"e\ntw", b"o\r\n", b"\nlast") == ["one", "two", "", "last"]
    assert split(b"") == []


def test_streams_do_not_mix() -> None:
    said: list[tuple[str, str]] = []
    splitter = LineSplitter(lambda stream, line: said.append((stream, line)))
    splitter.feed("stdout", b"a")
    splitter.feed("stderr", b"b\n")
    splitter.feed("stdout", b"c\n")
    assert said == [("stderr", "b"), ("stdout", "ac")]


def test_a_flood_is_counted_and_not_read() -> None:
    said: list[str] = []
    dropped: list[int] = []
    splitter = LineSplitter(lambda _stream, line: said.append(line), lambda: len(said) >= 2, dropped.append)
    for chunk in (b"1\n2\n3", b"4\n5\n6", b"7"):
        splitter.feed("stdout", chunk)
    splitter.flush()
    assert (said, dropped) == (["1", "2", "67"], [2])


def test_binary_is_text_afterwards() -> None:
    assert split(b"\xff\xfe\x00ok\n") == ["\ufffd\ufffd\x00ok"]


def test_long_lines_are_cut_between_characters() -> None:
    text = "é" * MAX_LINE
    for chunks in ([text.encode() + b"\n"], [text.encode()[:5001], text.encode()[5001:]]):
        said = split(*chunks)
        assert "".join(said) == text
        assert max(len(line.encode()) for line in said) <= MAX_LINE


@seed(3)
@settings(max_examples=100, deadline=None, database=None)
@given(st.text(st.sampled_from("aé€😀\n"), max_size=300), st.integers(1, 7))
def test_no_cut_changes_the_text(text: str, size: int) -> None:
    raw = text.encode()
    said = split(*(raw[i : i + size] for i in range(0, len(raw), size)))
    assert "\n".join(said) == text.removesuffix("\n")
