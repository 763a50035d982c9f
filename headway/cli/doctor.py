"""`headway doctor`: look at everything, say what to do."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from headway.cli.up import DEFAULT_FOLDER
from headway.errors import HeadwayError
from headway.supervisor import binaries, examine_machine, tenure
from headway.supervisor.examine_stack import StackExamination
from headway.supervisor.findings import Finding, collect, failure
from headway.supervisor.folder import Folder
from headway.supervisor.plan import Plan

_MARKS = {"ok": "ok  ", "warning": "warn", "failure": "FAIL"}
Examinations = list[tuple[str, Callable[[], Iterator[Finding]]]]


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), envvar="HEADWAY_DATA_DIR", default=DEFAULT_FOLDER)
@click.option("--json", "as_json", is_flag=True, help='Print {"ok", "findings": [{"name", "level", "what", "fix"}]}.')
@click.option("--config", is_flag=True, help="Check the settings and secrets alone, before anything is started.")
def doctor(data_dir: Path, as_json: bool, config: bool) -> None:
    """Check every component and say what to do. Exit code 1 if anything is broken; warnings do not count."""
    folder = Folder(data_dir.expanduser().absolute())
    findings = []
    for finding in collect(configuration() if config else examinations(folder)):
        findings.append(finding)
        if not as_json:
            click.echo(f"{_MARKS[finding.level]}  {finding.name:<18} {finding.what}")
            if finding.fix:
                click.echo(f"      {'':<18} → {finding.fix}")
    broken = [finding for finding in findings if finding.level == "failure"]
    if as_json:
        click.echo(json.dumps({"ok": not broken, "findings": [one.as_dict() for one in findings]}, indent=2))
    else:
        click.echo(summary([finding.level for finding in findings]))
    sys.exit(1 if broken else 0)


def summary(levels: Sequence[str]) -> str:
    failed, warned = levels.count("failure"), levels.count("warning")
    if not failed and not warned:
        return f"All {len(levels)} checks passed."
    counted = [f"{count} {word}" for count, word in ((failed, "failed"), (warned, "warned of something")) if count]
    return f"{', '.join(counted)}, {len(levels) - failed - warned} passed."


def configuration() -> Examinations:
    """The settings of a role as this process has them: what a service or a container runs before it starts one."""
    from headway.supervisor import examine_config

    first = list(collect([("settings", examine_config.settings)]))
    if any(finding.level == "failure" for finding in first):
        return [("settings", lambda: iter(first))]
    return [
        ("settings", lambda: iter(first)),
        ("Temporal", examine_config.temporal),
        ("database", examine_config.database),
        ("object store", examine_config.object_store),
        ("credentials", examine_config.credentials),
        ("runtime", examine_config.runtime),
        ("signing", examine_config.signing),
    ]


def examinations(folder: Folder) -> Examinations:
    """What there is to look at: the machine always, the stack where there is one."""
    machine: Examinations = [
        ("data folder", lambda: examine_machine.data_folder(folder)),
        ("programs", examine_machine.programs),
        ("sandbox", examine_machine.sandbox),
        ("services", lambda: examine_machine.services(folder)),
        ("isolation", lambda: examine_machine.isolation(folder)),
        ("disk", lambda: examine_machine.disk(folder, _disk_floor())),
        ("clock", lambda: examine_machine.clock(folder)),
    ]
    return machine + _stack(folder)


def _disk_floor() -> int:
    given = os.environ.get("HEADWAY_DISK_FLOOR", str(512 << 20))
    try:
        return int(given)
    except ValueError:
        raise HeadwayError("stack.start_failed", f"HEADWAY_DISK_FLOOR is {given!r}, and no number of bytes.") from None


def _stack(folder: Folder) -> Examinations:
    idle = failure("stack", f"nothing runs on {folder.root}", f"headway up --data-dir {folder.root}")
    if not folder.plan.exists() or tenure.wanted(folder) == tenure.DOWN:
        return [("stack", lambda: iter([idle]))]
    try:
        temporal, plan = binaries.find(binaries.TEMPORAL), Plan.read(folder)
    except HeadwayError as error:
        broken = failure("stack", error.message, "Correct that first.")
        return [("stack", lambda: iter([broken]))]
    look = StackExamination(
        folder,
        plan,
        temporal,
        bucket=os.environ.get("HEADWAY_S3_BUCKET", "headway"),
        database=os.environ.get("DATABASE_URL") or f"sqlite:///{folder.path('db', 'headway.db')}",
    )
    return [
        ("supervisor", look.supervisor),
        ("components", look.components),
        ("database", look.database),
        ("Temporal", look.temporal),
        ("workers", look.workers),
        ("object store", look.objects),
        ("web server", look.web_server),
    ]
