"""The end of a run: each tier's time, then one line that counts the tests of all of them, as pytest would."""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

KINDS = ("failed", "passed", "skipped", "errors")


def counts(report: Path) -> dict[str, int]:
    suites = ElementTree.parse(report).getroot().iter("testsuite")  # noqa: S314 - our own pytest wrote it
    found = dict.fromkeys(KINDS, 0)
    for suite in suites:
        told = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
        found["failed"] += told["failures"]
        found["errors"] += told["errors"]
        found["skipped"] += told["skipped"]
        found["passed"] += told["tests"] - told["failures"] - told["errors"] - told["skipped"]
    return found


def main() -> int:
    folder = Path(sys.argv[1])
    total = dict.fromkeys(KINDS, 0)
    seconds, broken = 0, []
    print("\ntier             time  result")
    for line in (folder / "tiers.tsv").read_text().splitlines():
        name, took, status = line.split("\t")
        report = folder / f"{name}.xml"
        here = counts(report) if report.exists() else {}
        told = ", ".join(f"{number} {kind}" for kind, number in here.items() if number)
        if status != "0":
            broken.append(name)
            # What fails without a test of its own (lint, the wheel) is counted too.
            total["failed"] += not (here.get("failed") or here.get("errors"))
            told = f"{told or 'no test'} (exit {status})"
        print(f"{name:<14} {int(took):>4} s  {told or 'ok'}")
        seconds += int(took)
        for kind, number in here.items():
            total[kind] += number
    if broken:
        print(f"tiers that failed: {', '.join(broken)}")
    summary = ", ".join(f"{number} {kind}" for kind, number in total.items() if number) or "no tests ran"
    print(f"===== {summary} in {seconds}.00s =====")
    return 1 if broken or not total["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
