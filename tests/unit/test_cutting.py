"""A log that is cut: what is shown, what is said, and that it ends with the end."""

from __future__ import annotations

from activities.producing.cutting import PER_LINE, TAIL, CutLog


class Page:
    def __init__(self, kept: int) -> None:
        self.shown: list[tuple[str, bytes]] = []
        self.log = CutLog(kept, lambda stream, chunk: self.shown.append((stream, chunk)), self.note)

    def note(self, text: str) -> None:
        self.shown.append(("note", text.encode()))

    def text(self, stream: str) -> bytes:
        return b"".join(chunk for name, chunk in self.shown if name == stream)


def test_what_is_short_enough_is_shown_as_it_is() -> None:
    page = Page(10_000)
    for chunk in (b"one\ntw", b"o\n", b"three"):
        page.log.feed("stdout", chunk)
    page.log.end()
    assert page.shown == [("stdout", b"one\ntw"), ("stdout", b"o\n"), ("stdout", b"three")]


def test_past_the_limit_a_note_a_count_and_the_last_lines() -> None:
    page = Page(100_000)
    lines = [b"line %06d of many\n" % number for number in range(50_000)]
    for start in range(0, len(lines), 1000):
        page.log.feed("stdout", b"".join(lines[start : start + 1000]))
    page.log.feed("stderr", b"error: the reason\n")
    page.log.end()
    shown = page.text("stdout").splitlines(keepends=True)
    first = next(at for at, line in enumerate(shown) if line != lines[at])
    assert 100_000 // (len(lines[0]) + PER_LINE) // 2 < first <= 100_000 // (len(lines[0]) + PER_LINE)
    last = shown[first:]
    assert last == lines[-len(last) :]
    assert TAIL - 100 < sum(map(len, last)) <= TAIL
    left_out = len(lines) - len(shown)
    notes = page.text("note").decode()
    assert "cut here, at 100000 bytes" in notes
    assert f"{left_out} lines, {left_out * len(lines[0])} bytes, were left out" in notes
    assert page.text("stderr") == b"error: the reason\n"
    assert page.shown[0][0] == "stdout"
    assert page.shown[-1][0] == "stderr"


def test_of_one_line_without_end_nothing_is_shown_that_may_be_half_a_secret() -> None:
    page = Page(1000)
    page.log.feed("stdout", b"x" * 2000)
    page.log.feed("stdout", b"secret" + b"y" * (TAIL - 2))
    page.log.end()
    assert page.text("stdout") == b""
    assert f"0 lines, {2000 + 6 + TAIL - 2} bytes, were left out" in page.text("note").decode()


def test_no_line_is_shown_that_goes_on_after_the_cut() -> None:
    page = Page(100)
    page.log.feed("stderr", b"password: sec")
    page.log.feed("stdout", b"x" * 200 + b"\n")
    page.log.feed("stderr", b"r")
    page.log.feed("stderr", b"et\nthe reason\n")
    page.log.end()
    assert page.text("stderr") == b"password: secthe reason\n"
    assert page.text("stdout") == b"x" * 200 + b"\n"


def test_the_end_of_a_line_without_end_is_not_shown_in_two_halves() -> None:
    page = Page(1000)
    page.log.feed("stdout", b"x" * 100_000)
    page.log.feed("stdout", b"y\nlast")
    page.log.end()
    assert page.text("stdout") == b"last"
