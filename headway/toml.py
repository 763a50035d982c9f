"""TOML of strangers: read in a time that grows with its size."""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

MOST_NAMES: Final = 16
_NAME = r"""(?:(?<![\w-])[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_LONG = re.compile(rf"{_NAME}(?:[ \t]*+\.[ \t]*+{_NAME}){{{MOST_NAMES}}}")


def parse_toml(text: str) -> dict[str, Any]:
    """Raises ValueError (tomllib's own is one), and RecursionError as tomllib does.

    A key of thousands of names (`a.a.a…`) takes tomllib the square of their number, so that a small file keeps a
    processor for minutes: such keys are refused.
    """
    text = text.removeprefix("\ufeff")
    if found := _LONG.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise ValueError(f"Key of more than {MOST_NAMES} names (at line {line})")
    return tomllib.loads(text)
