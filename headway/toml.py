"""TOML of strangers: read in a time that grows with its size."""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

MOST_NAMES: Final = 16
MOST_DIGITS: Final = 1000
_NAME = r"""(?:[\w-]++|"(?:[^"\\\n]++|\\.)*+"|'[^'\n]*+')"""
_DOT = r"[ \t]*+\.[ \t]*+"
# From left to right, each character once: what has no end takes what is left of its line, or of the text.
_TOKEN = re.compile(
    r'"""(?:[^"\\]++|\\(?s:.)|\\\Z|"(?!""))*+(?:"{3,5}+|\Z)'
    r"|'''(?:[^']++|'(?!''))*+(?:'{3,5}+|\Z)"
    r"|\#[^\n]*+"
    rf"|(?P<number>0[box][0-9A-Fa-f_]{{{MOST_DIGITS}}})"
    rf"|{_NAME}(?:{_DOT}{_NAME}){{0,{MOST_NAMES - 1}}}+(?P<more>{_DOT}{_NAME})?+"
    r"""|["'][^\n]*+"""
)


def parse_toml(text: str) -> dict[str, Any]:
    """Raises ValueError (tomllib's own is one), and RecursionError as tomllib does.

    A key of thousands of names (`a.a.a…`) takes tomllib the square of their number, so that a small file keeps a
    processor for minutes: such keys are refused. So are numbers that no message could name: of those that are not
    decimal tomllib takes any.
    """
    text = text.removeprefix("\ufeff")
    for token in _TOKEN.finditer(text):
        if token["more"] is not None:
            raise ValueError(f"Key of more than {MOST_NAMES} names ({_place(text, token.start())})")
        if token["number"] is not None:
            raise ValueError(f"Number of more than {MOST_DIGITS} digits ({_place(text, token.start())})")
    return tomllib.loads(text)


def _place(text: str, at: int) -> str:
    return "at line " + str(text.count("\n", 0, at) + 1)
