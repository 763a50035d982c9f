"""The beginning of a push, read from a stream that may be cut anywhere and written by anybody."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from adapters.githost.pushhead import PushHead, PushLimits, packet, refusal
from headway.errors import HeadwayError

ZERO, ONE = "0" * 40, "1" * 40
LIMITS = PushLimits(refs=3, objects=10)


def line(ref: str, old: str = ZERO, new: str = ONE, capabilities: str = "") -> bytes:
    tail = f"\0 {capabilities}" if capabilities else ""
    return packet(f"{old} {new} {ref}{tail}".encode())


def pack(objects: int) -> bytes:
    return b"PACK" + (2).to_bytes(4, "big") + objects.to_bytes(4, "big") + b"rest"


PUSH = line("refs/heads/main", capabilities="report-status push-options") + line("refs/heads/b") + b"0000"
WHOLE = PUSH + packet(b"no-wait") + b"0000" + pack(10)


@given(some.lists(some.integers(0, len(WHOLE)), max_size=5))
@settings(deadline=None, max_examples=50)
def test_it_is_the_same_wherever_it_is_cut(cuts: list[int]) -> None:
    head = PushHead(LIMITS)
    edges = [0, *sorted(cuts), len(WHOLE)]
    for start, end in itertools.pairwise(edges):
        head.feed(WHOLE[start:end])
    assert head.done
    assert [ref for _, _, ref in head.commands] == [b"refs/heads/main", b"refs/heads/b"]
    assert bytes(head.raw) == WHOLE


def test_a_deletion_has_no_pack_and_a_probe_nothing() -> None:
    for body in (line("refs/heads/a", old=ONE, new=ZERO, capabilities="report-status") + b"0000", b"0000"):
        head = PushHead(LIMITS)
        head.feed(body)
        assert head.done


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"zzzz", "push.malformed"),
        (b"0003", "push.malformed"),
        (b"ffff", "push.malformed"),
        (packet(b"push-cert\0x"), "push.malformed"),
        (packet(b"one two"), "push.malformed"),
        (line("refs/heads/a") + b"0000" + b"JUNK" + b"x" * 8, "push.malformed"),
        (line("refs/heads/a") + b"0000" + pack(11), "push.too_large"),
        (b"".join(line(f"refs/heads/{n}") for n in range(4)), "push.too_large"),
    ],
)
def test_what_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(HeadwayError) as caught:
        PushHead(LIMITS).feed(body)
    assert caught.value.code == code


@given(some.binary(max_size=300))
@settings(deadline=None, max_examples=100)
def test_anything_is_read_or_refused(body: bytes) -> None:
    head = PushHead(LIMITS)
    with contextlib.suppress(HeadwayError):
        head.feed(body)
    assert len(head.commands) <= LIMITS.refs + 1


def test_a_refusal_is_what_git_understands() -> None:
    head = PushHead(LIMITS)
    head.feed(line("refs/heads/main", capabilities="report-status side-band-64k"))
    said = refusal(head, "Too much.")
    assert said.startswith(packet(b"\2headway: Too much.\n"))
    assert b"unpack Too much.\n" in said
    assert b"ng refs/heads/main refused\n" in said
    assert said.endswith(b"0000")
    quiet = PushHead(LIMITS)
    quiet.feed(line("refs/heads/main"))
    assert refusal(quiet, "Too much.") == b""
