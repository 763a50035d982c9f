"""Durations counted in buckets a tenth apart, so that percentiles of many hosts and minutes can be added up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

SMALLEST: Final = 0.1  # milliseconds
STEP: Final = 1.1
LAST: Final = 160  # about seven minutes


def bucket_of(milliseconds: float) -> int:
    """The bucket that a duration belongs to: its upper end is at most a tenth above."""
    if milliseconds <= SMALLEST:
        return 0
    return min(LAST, math.ceil(math.log(milliseconds / SMALLEST) / math.log(STEP)))


def percentile(counts: Mapping[int, int], part: float) -> float | None:
    """The duration in milliseconds that `part` (0 to 1) of what was counted did not exceed; None of nothing."""
    left = math.ceil(part * sum(counts.values()))
    for bucket in sorted(counts):
        left -= counts[bucket]
        if left <= 0:
            return round(SMALLEST * STEP**bucket, 2)
    return None
