"""Secrets are taken out of output by value: in every usual form, at every cut of the stream, and nothing else is."""

from __future__ import annotations

import base64
import json
import textwrap
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.redaction import MIN_LENGTH, Redactor, forms_of

SECRET = "p@ss wörd/1+2=3&x"
REDACTOR = Redactor({"TOKEN": SECRET})


@pytest.mark.parametrize(
    "printed",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower(),
        quote_plus(SECRET),
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("="),
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        SECRET[::-1],
        SECRET.replace("=3", "\r\n=3"),
        textwrap.fill(base64.b64encode(SECRET.encode()).decode(), 7),
    ],
)
def test_every_usual_form_is_found(printed: str) -> None:
    shown = REDACTOR.hide_text(f"before {printed} after {printed}.")
    assert shown.count("[TOKEN redacted]") == 2
    assert shown.startswith("before ")
    assert "after" in shown
    assert printed.strip('"') not in shown


def test_what_base64_and_xxd_break_into_lines_is_found() -> None:
    """Where they break depends on what stands before the value."""
    value = "k3y_" + "0123456789abcdefghijklmnopqrstuvwxyz" * 3
    redactor = Redactor({"KEY": value})
    for before in ("", "a", "Bearer: ", "x" * 55, "x" * 57):
        for after in ("", "\n"):
            raw = (before + value + after).encode()
            for width, printed in ((76, base64.b64encode(raw)), (60, raw.hex().encode())):
                lines = b"\n".join(printed[at : at + width] for at in range(0, len(printed), width))
                shown = redactor.hide(b"$ print\n" + lines + b"\ndone\n")
                assert b"[KEY redacted]" in shown
                assert len(shown) < len(before + after) * 2 + 50
                assert shown.startswith(b"$ print\n")
                assert shown.endswith(b"\ndone\n")


def test_a_line_waits_only_for_what_is_likely_to_be_a_secret() -> None:
    stream = Redactor({"KEY": "correct-horse-battery"}).stream()
    assert stream.feed(b"a correct\n") == b"a "
    assert stream.feed(b"-horse-battery\nb") == b"[KEY redacted]\nb"
    assert stream.feed(b" cor\n") == b" cor\n"
    assert stream.feed(b"rect-") == b""
    assert stream.feed(b"horse-battery\n") == b"[KEY redacted]\n"
    assert stream.feed(b"correct" + b"\n" * 1000) + stream.feed(b"-\n") == b"correct" + b"\n" * 1000 + b"-\n"


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_base64_of_a_longer_text_shows_nothing_of_the_value(before: bytes, after: bytes) -> None:
    """`Authorization: Basic` holds the password in the middle of what is encoded."""
    printed = base64.b64encode(before + SECRET.encode() + after)
    shown = REDACTOR.hide(b"Authorization: Basic " + printed)
    assert b"[TOKEN redacted]" in shown
    assert len(shown) < len(printed) + 40 - 16


@given(st.lists(st.sampled_from(["p@", "ss wörd", "/1+2", "=3&x", SECRET, "x", "\n", SECRET[:-1]])), st.data())
def test_the_cut_of_a_stream_makes_no_difference(parts: list[str], data: st.DataObject) -> None:
    raw = "".join(parts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    stream, shown = REDACTOR.stream(), b""
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        shown += stream.feed(raw[start:end])
        assert SECRET.encode() not in shown
    assert shown + stream.flush() == REDACTOR.hide(raw)


def test_a_stream_shows_at_once_what_can_be_no_secret() -> None:
    stream = REDACTOR.stream()
    assert stream.feed(b"listening on 8080\n") == b"listening on 8080\n"
    assert stream.feed(b"token: p@ss w") == b"token: "
    assert stream.feed(b"ide open\n") == b"p@ss wide open\n"
    assert stream.flush() == b""


def test_values_within_values_and_overlaps() -> None:
    redactor = Redactor({"SHORT": "abcdef", "LONG": "xxabcdefyy", "NEXT": "defghijk"})
    assert redactor.hide_text("1 xxabcdefyy 2 abcdef 3") == "1 [LONG redacted] 2 [SHORT redacted] 3"
    shown = redactor.hide_text("abcdefghijk")
    assert shown == "[SHORT redacted]"
    stream = redactor.stream()
    assert stream.feed(b"abcdef") + stream.feed(b"ghijk!") == b"[SHORT redacted]!"


def test_a_key_of_many_lines_is_found_line_by_line() -> None:
    pem = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\nAgEGCCqGSM49AwEHBG0w\n-----END PRIVATE KEY-----\n"
    redactor = Redactor({"KEY": pem})
    for line in ("MIGHAgEAMBMGByqGSM49", "AgEGCCqGSM49AwEHBG0w"):
        assert redactor.hide_text(f"12:00 | {line}") == "12:00 | [KEY redacted]"
    assert redactor.hide_text("-----BEGIN PRIVATE KEY-----") == "-----BEGIN PRIVATE KEY-----"
    assert redactor.hide_text(pem) == "[KEY redacted]"
    assert redactor.hide_text(pem.replace("\n", "\r\n")) == "[KEY redacted]"


def test_what_is_too_short_stays() -> None:
    redactor = Redactor({"DEBUG": "1", "MODE": "x" * (MIN_LENGTH - 1)})
    assert redactor.hide_text("1 of 1 done, mode xxx") == "1 of 1 done, mode xxx"
    assert forms_of("123") == set()


def test_a_value_of_any_length_is_found_wherever_it_stands() -> None:
    """Long forms are sifted by words of four bytes: none may fall through, however it is aligned or broken."""
    for length in (*range(MIN_LENGTH, 24), 40):
        value = ("q7Z-" + "kW3xV9" * 8)[:length]
        redactor = Redactor({"KEY": value, "OTHER": "another-value-of-some-length"})
        for before in range(9):
            raw = b"." * before + value.encode() + b"." * before
            assert value.encode() not in redactor.hide(raw)
            if length >= 8:
                shown = redactor.hide(raw[: before + 5] + b"\n" + raw[before + 5 :])
                assert b"[KEY redacted]" in shown, (length, before)


def test_much_output_and_many_secrets_take_little_time() -> None:
    redactor = Redactor({f"S{n}": f"secret-value-{n:04}" for n in range(100)})
    chunk = b"GET /index.html 200 12 ms\n" * 2500
    stream = redactor.stream()
    assert b"".join(stream.feed(chunk) for _ in range(8)) == chunk * 8


def test_a_value_that_repeats_itself_is_not_held_back_for_ever() -> None:
    """Each end of such output may be followed by more of the value: it was kept, and looked at from its beginning."""
    stream = Redactor({"LINE": "1" * 8}).stream()
    shown = [len(stream.feed(b"1" * 4096)) for _ in range(256)]
    assert sum(1 for one in shown if one) > 200
    told = stream.feed(b"1\nand more\n") + stream.flush()
    assert told.endswith(b"[LINE redacted]\nand more\n")
    assert b"11" not in told
