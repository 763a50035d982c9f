"""`python -m bench [measure …]`: start a stack, measure, write bench/results/<date>.json, stop the stack."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.client import Caller
from bench.figures import machine
from bench.measures import MEASURES, Run
from bench.stack import Stack

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    asked.add_argument("measures", nargs="*", metavar="measure", help=f"some of: {', '.join(MEASURES)} (default: all)")
    asked.add_argument("--out", type=Path, help="where the JSON goes (default: bench/results/<date>.json)")
    options = asked.parse_args()
    unknown = [name for name in options.measures if name not in MEASURES]
    if unknown:
        asked.error(f"no such measure: {', '.join(unknown)}")
    now = datetime.now(UTC)
    report: dict[str, Any] = {"date": now.isoformat(timespec="seconds"), "commit": commit(), "machine": machine()}
    failed = False
    # A short path: unix sockets below it have at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="hwb-") as folder:
        stack = Stack.start(Path(folder))
        try:
            run = Run(stack, Path(folder), Caller(stack))
            for name in options.measures or MEASURES:
                began = time.monotonic()
                try:
                    report[name] = MEASURES[name](run)
                except Exception as error:  # one measure that fails must not lose the others
                    report[name] = {"error": f"{type(error).__name__}: {error}"}
                    failed = True
                print(f"{name} ({time.monotonic() - began:.0f} s)\n{json.dumps(report[name], indent=2)}", flush=True)
        finally:
            stack.stop()
    target = options.out or RESULTS / f"{now:%Y-%m-%d-%H%M}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written to {target}")
    return 1 if failed else 0


def commit() -> str:
    """The commit that was measured; `+` when the work tree differs from it."""
    root = Path(__file__).parent.parent
    head = subprocess.run(["git", "-C", str(root), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run(["git", "-C", str(root), "diff", "--quiet", "HEAD"], check=False)
    return head.stdout.strip() + ("+" if changed.returncode else "")


if __name__ == "__main__":
    sys.exit(main())
