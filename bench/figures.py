"""Percentiles, and what machine they were taken on."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path


def percentile(samples: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: `percentile(times, 0.99)`."""
    ranked = sorted(samples)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """`{n, p50_ms, p90_ms, p99_ms, max_ms}` of times in seconds."""
    figures = {f"p{share:.0f}_ms": percentile(seconds, share / 100) * 1000 for share in (50, 90, 99)}
    return {
        "n": len(seconds),
        **{name: round(ms, 1) for name, ms in figures.items()},
        "max_ms": round(max(seconds) * 1000, 1),
    }


def machine() -> dict[str, object]:
    """Processors, memory, kernel, Python; and how busy the machine was when the run began."""
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    return {
        "cpus": os.cpu_count(),
        "memory_mib": int(memory.split()[1]) // 1024,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }
