"""Running strangers' code: nothing of the host but a toolchain, no network but the egress proxy, and named limits."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from adapters import cgroup
from adapters.egress.doors import doors_of
from adapters.egress.listener import PROXY_ADDRESS, PROXY_URL, listen_within
from adapters.egress.proxy import Door, EgressProxy
from adapters.sandbox import bare, capability, certificates, leftovers
from adapters.sandbox.argv import (
    HOME,
    SEARCH,
    WORKSPACE,
    Bind,
    Descriptors,
    Inside,
    environment,
    is_word,
    options,
    target_path,
    working_folder,
)
from adapters.sandbox.command import Command, Outcome
from adapters.sandbox.launch import GATE, TOOLS, Prefix, Staging
from adapters.sandbox.removal import hand_over
from adapters.sandbox.run import OnOutput, Pipes, Plan, Run
from adapters.sandbox.slots import Slot, Slots
from adapters.sandbox.tree import NamespaceTree, Tree
from adapters.sandbox.watch import DiskWatch
from headway.errors import HeadwayError


class Sandbox:
    """Thread-safe; each run needs a slot, and waits for one.

    `state`: a folder of this sandbox alone (left-overs in it are removed). `bwrap`: the program, found if None.
    `ca_files`: certificates to trust beside the system's. `toolchains`: folders shown read-only at their own paths,
    their `bin` first on PATH. `allow_unsandboxed`: where there can be no sandbox, run without one; the operator's
    explicit word, never a fallback of its own.
    """

    def __init__(
        self,
        *,
        state: Path,
        bwrap: Path | None = None,
        allow_unsandboxed: bool = False,
        slots: int,
        ca_files: Sequence[Path] = (),
        toolchains: Sequence[Path] = (),
    ) -> None:
        self._state = state.absolute()
        self._state.mkdir(parents=True, exist_ok=True)
        self._given = bwrap
        self._allow_unsandboxed = allow_unsandboxed
        self._drop = capability.drops_uid()
        self._slots = Slots(self._state, slots, drop=self._drop)
        self._taken: dict[Path, Slot] = {}
        self._certificates = certificates.bundle(self._state, ca_files)
        self._toolchains = tuple(toolchains)
        self._cgroups = cgroup.find()
        self._tried = threading.Lock()
        self._mode: _Mode | None = None

    @contextlib.contextmanager
    def workspace(self, canceled: Callable[[], bool] = lambda: False) -> Iterator[Path]:
        """A fresh, empty folder owned by a free slot's uid; waits for a slot, and removes the folder in the end.

        Errors: `job.canceled` if `canceled` came true before a slot was free.

        Home and /tmp of runs in it last as long as the folder does, so a second command finds the first one's caches.
        """
        slot = self._slots.take(canceled)
        if slot is None:
            raise HeadwayError("job.canceled", "The job was canceled while it waited for a place to run.")
        self._taken[slot.workspace] = slot
        try:
            yield slot.workspace
        finally:
            del self._taken[slot.workspace]
            self._slots.give_back(slot)

    def run(self, command: Command, on_output: OnOutput, canceled: Callable[[], bool]) -> Outcome:
        """Run to the end, in the calling thread. `on_output(stream, bytes)` gets "stdout", "stderr" and "system".

        What this process has put into a workspace of `workspace()` becomes the slot's. Any other workspace, and every
        writable mount, belong to the slot's uid for the run, and to this process again afterwards.
        Errors: `build.unsandboxed` where this machine allows no sandbox, `build.config_invalid` for a bad cwd, command
        or environment, `internal.error` where the machinery failed.
        """
        if not all(map(is_word, command.argv)):
            raise HeadwayError("build.config_invalid", "A command may not hold a NUL, or half of a character.")
        mode = self._require()
        slot = self._taken.get(command.workspace.absolute())
        if slot is not None:
            return self._in_slot(command, slot, mode, on_output, canceled)
        slot = self._slots.take(canceled)
        if slot is None:
            return Outcome(137, 0.0, canceled=True)
        try:
            return self._in_slot(command, slot, mode, on_output, canceled)
        finally:
            self._slots.give_back(slot)

    def _in_slot(
        self, command: Command, slot: Slot, mode: _Mode, on_output: OnOutput, canceled: Callable[[], bool]
    ) -> Outcome:
        lent = [mount.source for mount in command.mounts if mount.writable]
        if command.workspace.absolute() not in self._taken:
            lent.append(command.workspace)
        elif slot.uid is not None:
            hand_over(command.workspace, slot.uid, slot.uid)  # what this process has put into it
        with self._lend(lent, slot.uid), contextlib.ExitStack() as stack:
            group = None
            if self._cgroups is not None:
                group = self._cgroups.make(self._slots.mark(slot.number), command.limits)
                stack.callback(group.remove)
            pipes = Pipes()
            stack.callback(pipes.close)
            files = Descriptors()
            stack.callback(files.close)
            writable = [slot.home, slot.tmp, command.workspace, *(m.source for m in command.mounts if m.writable)]
            disk = DiskWatch(writable, command.limits.disk, before=lent)
            if mode.bwrap is None:
                mark = self._slots.mark(slot.number)
                plan = bare.plan(command, slot, self._certificates, pipes, disk, group, mark)
            else:
                plan = self._plan(command, slot, mode, pipes, files, disk, group)
            if plan.egress is not None:
                stack.callback(plan.egress.stop)
            return Run(plan, pipes, on_output, canceled).go()

    def _plan(
        self,
        command: Command,
        slot: Slot,
        mode: _Mode,
        pipes: Pipes,
        files: Descriptors,
        disk: DiskWatch,
        group: cgroup.Cgroup | None,
    ) -> Plan:
        assert mode.bwrap is not None  # noqa: S101
        staging = Staging(slot.uid)
        program = staging.reach(mode.bwrap.path, capability.bwrap_folder(mode.bwrap.path))
        own = command.workspace.absolute() in self._taken
        sources = [
            (staging.reach(slot.home, slot.folder), HOME, True),
            (staging.reach(slot.tmp, slot.folder), "/tmp", True),  # noqa: S108
            (staging.reach(command.workspace, slot.folder if own else None), WORKSPACE, True),
            *((staging.reach(m.source), target_path(m.target), m.writable) for m in command.mounts),
        ]
        authority = staging.reach(self._certificates) if self._certificates is not None else None
        doors = doors_of(command.egress)
        inside = Inside(
            cwd=working_folder(command.cwd),
            env=environment(
                command.env,
                home=HOME,
                tmp="/tmp",  # noqa: S108
                proxy=PROXY_URL if command.egress is not None else None,
                certificates=certificates.INSIDE if authority is not None else None,
                search=":".join([*(str(folder / "bin") for folder in self._toolchains), SEARCH]),
            ),
            binds=[Bind(staging.at(source), target, writable) for source, target, writable in sources],
            certificates=staging.at(authority) if authority is not None else None,
            names=tuple(dict.fromkeys((address, rule.host) for address, rule in doors)),
            toolchains=self._toolchains,
            shut_namespaces=mode.shut_namespaces,
            # Before the gate nothing is forked, so that all of it gets into the cgroup; behind it a builder that was
            # killed meanwhile would let the command run: at the end of the pipe the shell in front of it gives up.
            extra=("--json-status-fd", str(pipes.status[1]), "--block-fd", str(pipes.gate[0])),
        )
        listed = files.hold("options", b"".join(os.fsencode(word) + b"\0" for word in options(inside, files)))
        proxy = EgressProxy(command.egress) if command.egress is not None else None

        def opened(first: int) -> None:
            if slot.uid is None:
                tasks = command.limits.pids + 8 + _others()
                resource.prlimit(first, resource.RLIMIT_NPROC, (tasks, tasks))
            if proxy is not None:
                sockets = listen_within(first, [PROXY_ADDRESS, *((a, r.port) for a, r in doors)])
                proxy.start(
                    sockets[0],
                    [Door(s, r.host, r.port) for s, (_, r) in zip(sockets[1:], doors, strict=True)],
                )

        def tree(child: subprocess.Popen[bytes], first: int) -> Tree:
            return NamespaceTree(child, first)

        words = [
            *(group.entering if group is not None else ()),
            *staging.words,
            *Prefix(command.limits, slot.uid, low=True).words,
            str(staging.at(program)),
            "--args",
            str(listed),
        ]
        return Plan(
            words=[*words, "--", "sh", "-c", GATE, "gate", *command.argv],
            pass_fds=[*files.numbers, pipes.status[1], pipes.gate[0]],
            stdin=pipes.gate[0],
            env={"PATH": TOOLS, leftovers.VARIABLE: self._slots.mark(slot.number)},
            limits=command.limits,
            tree=tree,
            opened=opened,
            disk=disk,
            cgroup=group,
            egress=proxy,
            clear=lambda: leftovers.end(self._slots.mark(slot.number), None),
        )

    @contextlib.contextmanager
    def _lend(self, paths: Sequence[Path], uid: int | None) -> Iterator[None]:
        if uid is None:
            yield
            return
        lent: list[Path] = []
        try:
            try:
                for path in paths:
                    lent.append(path)
                    hand_over(path, uid, uid)
            except OSError as error:
                raise HeadwayError(
                    "internal.error", f"{error.filename or 'a mount'} cannot be lent: {error}"
                ) from error
            yield
        finally:
            for path in lent:
                with contextlib.suppress(FileNotFoundError):
                    hand_over(path, os.geteuid(), os.getegid())

    def _require(self) -> _Mode:
        with self._tried:
            if self._mode is None:
                self._mode = self._try()
            return self._mode

    def _try(self) -> _Mode:
        bwrap, shut, complaint = capability.usable(self._given, self._state, drop=self._drop)
        if bwrap is not None:
            return _Mode(bwrap, shut)
        if self._allow_unsandboxed:
            return _Mode(None, False)
        raise HeadwayError("build.unsandboxed", f"This machine cannot run a sandbox: {complaint}")


class _Mode:
    def __init__(self, bwrap: capability.Bwrap | None, shut_namespaces: bool) -> None:
        self.bwrap, self.shut_namespaces = bwrap, shut_namespaces


def _others() -> int:
    """Tasks of this uid that count too: kernels before 5.14 count a uid over all namespaces."""
    release = os.uname().release.split("-")[0].split(".")
    if tuple(int(part) for part in release[:2] if part.isdigit()) >= (5, 14):
        return 0
    return sum(1 for name in os.listdir("/proc") if name.isdigit() and _owner(name) == os.getuid()) * 4


def _owner(pid: str) -> int:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1
