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


def main_way(report: Path) -> str:
    """The suite of a site's main way, which has to be green three times, as it went in a tier that runs it too."""
    cases = ElementTree.parse(report).getroot().iter("testcase")  # noqa: S314 - our own pytest wrote it
    ours = [one for one in cases if one.get("classname", "").endswith(".test_pipeline")]
    passed = sum(len(one) == 0 for one in ours)
    return f"{passed} of {len(ours)} passed in {sum(float(one.get('time', '0')) for one in ours):.0f} s"


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
    for tier, where in (
        ("test", "embedded"),
        ("pipeline-pg", "on PostgreSQL"),
        ("containers", "docker-compose.yml"),
    ):
        if (folder / f"{tier}.xml").exists():
            print(f"the main way of a site, {where}: {main_way(folder / f'{tier}.xml')}")
    if broken:
        print(f"tiers that failed: {', '.join(broken)}")
    summary = ", ".join(f"{number} {kind}" for kind, number in total.items() if number) or "no tests ran"
    print(f"===== {summary} in {seconds}.00s =====")
    return 1 if broken or not total["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
