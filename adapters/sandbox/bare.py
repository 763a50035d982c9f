"""The same commands without a sandbox, where the operator said so: limits and killing as far as they go, no walls."""

from __future__ import annotations

import re
import secrets
import subprocess
from pathlib import Path

from adapters.cgroup import Cgroup
from adapters.sandbox import leftovers
from adapters.sandbox.argv import HOME, SEARCH, WORKSPACE, environment, target_path, working_folder
from adapters.sandbox.command import Command
from adapters.sandbox.launch import GATE, Prefix, reachable
from adapters.sandbox.run import Pipes, Plan
from adapters.sandbox.slots import Slot
from adapters.sandbox.tree import MARKER, MarkedTree, Tree
from adapters.sandbox.watch import DiskWatch


def plan(
    command: Command,
    slot: Slot,
    certificates: Path | None,
    pipes: Pipes,
    disk: DiskWatch,
    cgroup: Cgroup | None,
    slot_mark: str,
) -> Plan:
    """The uid is dropped where it can still reach the workspace; paths of the sandbox are put into host terms."""
    drop = slot.uid if reachable(command.workspace, slot.uid) else None
    places = {WORKSPACE: str(command.workspace), HOME: str(slot.home)}
    places |= {target_path(mount.target): str(mount.source) for mount in command.mounts}
    pattern = re.compile(
        "(?<![\\w/.-])(" + "|".join(map(re.escape, sorted(places, key=len, reverse=True))) + ")(?![\\w.-])"
    )

    def here(text: str) -> str:
        return pattern.sub(lambda match: places[match[1]], text)

    mark = secrets.token_hex(8)
    env = environment(
        {key: here(value) for key, value in command.env.items()},
        home=str(slot.home),
        tmp=str(slot.tmp),
        proxy=None,
        certificates=str(certificates) if certificates is not None else None,
        search=SEARCH,
    )

    def tree(child: subprocess.Popen[bytes], _: int) -> Tree:
        return MarkedTree(child, mark)

    gate = ["sh", "-c", GATE, "gate"]
    return Plan(
        words=[
            *(cgroup.entering if cgroup is not None else ()),
            *Prefix(command.limits, drop, low=True).words,
            *gate,
            *map(here, command.argv),
        ],
        pass_fds=[],
        stdin=pipes.gate[0],
        env={**env, MARKER: mark, leftovers.VARIABLE: slot_mark},
        limits=command.limits,
        tree=tree,
        opened=lambda _: None,
        disk=disk,
        cgroup=cgroup,
        cwd=here(working_folder(command.cwd)),
        reports=False,
    )
