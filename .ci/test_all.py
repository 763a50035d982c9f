"""Every test that this machine can run, with a dated record in docs/results/: what ran, how long, what was left out."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"


def missing() -> dict[str, str]:
    """Markers whose tests cannot run here, and why."""
    out = {}
    if "DATABASE_URL" not in os.environ:
        out["postgres"] = "DATABASE_URL names no PostgreSQL"
    if not shutil.which("chromium"):
        out["browser"] = "no chromium on PATH"
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "version"], capture_output=True, check=False).returncode:
        out["containers"] = "no Docker-compatible engine answers"
    return out


def by_folder(report: Path) -> dict[str, list[float]]:
    """Folder → [tests, failed, skipped, seconds]."""
    out: dict[str, list[float]] = defaultdict(lambda: [0, 0, 0, 0.0])
    for case in ElementTree.parse(report).getroot().iter("testcase"):  # noqa: S314 - our own pytest wrote it
        name = "/".join(case.get("classname", "").split(".")[:2])
        row = out[name]
        row[0] += 1
        row[1] += case.find("failure") is not None or case.find("error") is not None
        row[2] += case.find("skipped") is not None
        row[3] += float(case.get("time", "0"))
    return out


def record(report: Path, seconds: float, left_out: dict[str, str], status: int) -> Path:
    now = datetime.now(UTC)
    head = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    lines = [
        f"# make test-all, {now:%Y-%m-%d %H:%M} UTC",
        "",
        f"Commit {head}, Python {platform.python_version()}, {os.cpu_count()} processors, Linux {platform.release()}. "
        f"{'Passed' if status == 0 else f'Failed (pytest exit {status})'} in {seconds:.0f} s.",
        "",
        "| folder | tests | failed | skipped | seconds |",
        "|---|---|---|---|---|",
    ]
    for name, (tests, failed, skipped, taken) in sorted(by_folder(report).items()):
        lines.append(f"| {name} | {tests} | {failed} | {skipped} | {taken:.1f} |")
    lines += [f"\nLeft out: `{marker}` ({why})." for marker, why in left_out.items()]
    RESULTS.mkdir(parents=True, exist_ok=True)
    target = RESULTS / f"test-all-{now:%Y-%m-%d}.md"
    target.write_text("\n".join(lines) + "\n")
    return target


def main() -> int:
    left_out = missing()
    chosen = ["-m", " and ".join(f"not {marker}" for marker in left_out)] if left_out else []
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        began = time.monotonic()
        status = subprocess.run(
            [sys.executable, "-m", "pytest", *chosen, f"--junitxml={report}"],
            cwd=ROOT,
            env={**os.environ, "HEADWAY_FAULTS": "all"},
            check=False,
        ).returncode
        if report.exists():
            print(f"written to {record(report, time.monotonic() - began, left_out, status).relative_to(ROOT)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
