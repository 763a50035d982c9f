"""What an app sees: the recipe for one instance, from its spec and from what this machine can do."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.egress.doors import doors_of
from adapters.egress.listener import PROXY_URL
from adapters.egress.policy import EgressPolicy, normal
from adapters.runtime.driver import InstanceSpec
from adapters.runtime.process.recipe import Outside, Pieces
from adapters.sandbox import capability, certificates
from adapters.sandbox.argv import SEARCH, WORKSPACE, Bind, Inside, environment, options, target_path
from adapters.sandbox.command import Limits
from adapters.sandbox.launch import Prefix, Staging
from headway.errors import HeadwayError

PORT = 8080
USER, HOME = "app", "/home/app"
TMP_BYTES, HOME_BYTES = 256 << 20, 64 << 20  # in memory, and counted as the instance's
PUBLIC, PUBLIC_PORTS = "public", (443, 80)
UNIX = "unix:"
SPARE_TASKS = 8
DEFAULTS = {"USER": USER, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "NODE_ENV": "production"}


@dataclass(frozen=True)
class Machine:
    """What is the same for all instances. `host_sockets` are paths, or folders, that apps may ask for by `unix:`."""

    bwrap: capability.Bwrap
    shut_namespaces: bool
    certificates: Path | None
    toolchains: Sequence[Path]
    private_ok: frozenset[str]
    host_sockets: Sequence[Path]
    tasks_counted: bool


@dataclass(frozen=True)
class Walls:
    """The part of a recipe that shapes what is seen and what can be reached."""

    words: tuple[str, ...]
    options: tuple[str, ...]
    data: tuple[bytes, ...]
    command: tuple[str, ...]
    tasks: int | None
    outside: Outside | None


def port_of(spec: InstanceSpec) -> int | None:
    """What the app listens on; None: it serves nobody."""
    return spec.port if spec.port is not None else (PORT if spec.ref.process == "web" else None)


def walls(spec: InstanceSpec, machine: Machine, uid: int | None) -> Walls:
    """Errors: `runtime.spec_invalid`, `runtime.egress_refused`."""
    root = Path(os.path.realpath(spec.root))
    if not root.is_dir():
        raise HeadwayError("runtime.spec_invalid", f"{spec.root} is no folder")
    staging = Staging(uid)
    program = staging.reach(machine.bwrap.path, capability.bwrap_folder(machine.bwrap.path))
    at_root = staging.reach(root)
    policy = _policy(spec, machine)
    doors = doors_of(policy)
    authority = staging.reach(machine.certificates) if machine.certificates is not None else None
    sockets = [(staging.reach(path), str(path)) for path in allowed_sockets(spec, machine.host_sockets)]
    volumes = [(staging.reach(one.source.absolute()), inside(one.target, "a volume")) for one in spec.volumes]
    tree = list(release(root, staging.at(at_root), [target for _, target in volumes]))
    binds = [one for one in tree if isinstance(one, Bind)]
    binds += [Bind(staging.at(source), target, writable=True) for source, target in volumes]
    binds += [Bind(staging.at(source), target, writable=False) for source, target in sockets]
    pieces = Pieces()
    seen = Inside(
        cwd=inside(spec.cwd, "cwd") if spec.cwd else WORKSPACE,
        env=_environment(spec, machine, proxied=policy is not None),
        binds=binds,
        certificates=staging.at(authority) if authority is not None else None,
        names=tuple(dict.fromkeys((address, rule.host) for address, rule in doors)),
        toolchains=machine.toolchains,
        shut_namespaces=machine.shut_namespaces,
        user=USER,
        home=HOME,
        memory=(("/tmp", TMP_BYTES), (HOME, HOME_BYTES)),  # noqa: S108
        own_network=False,
    )
    words = options(seen, pieces)
    frame = [word for one in tree if not isinstance(one, Bind) for word in one]
    at = words.index("--clearenv") + 1
    words[at:at] = frame
    counted = machine.tasks_counted
    # A uid is shared by the instances of an environment: what it may start is only counted where no cgroup does.
    limits = Limits(0, 0, 0 if counted else spec.bounds.pids * 4, 0, 0, nofile=spec.bounds.nofile)
    return Walls(
        words=(*staging.words, *Prefix(limits, uid).words, str(staging.at(program))),
        options=tuple(words),
        data=tuple(pieces.data),
        command=("/bin/sh", "-c", spec.command),
        tasks=None if counted or uid is not None else spec.bounds.pids + SPARE_TASKS,
        outside=_outside(policy),
    )


def _environment(spec: InstanceSpec, machine: Machine, *, proxied: bool) -> Mapping[str, str]:
    try:
        env = environment(
            spec.env,
            home=HOME,
            tmp="/tmp",  # noqa: S108
            proxy=PROXY_URL if proxied else None,
            certificates=certificates.INSIDE if machine.certificates is not None else None,
            search=":".join([*(str(folder / "bin") for folder in machine.toolchains), SEARCH]),
            base={**DEFAULTS, "NODE_USE_ENV_PROXY": "1"} if proxied else DEFAULTS,
        )
    except HeadwayError as error:
        raise HeadwayError("runtime.spec_invalid", error.message, param="env") from None
    port = port_of(spec)
    return env | ({"PORT": str(port)} if port is not None else {})


def _policy(spec: InstanceSpec, machine: Machine) -> EgressPolicy | None:
    named = [text for text in spec.egress if text != PUBLIC and not text.startswith(UNIX)]
    if not named and PUBLIC not in spec.egress:
        return None
    try:
        policy = EgressPolicy.of(named)
    except HeadwayError as error:
        raise HeadwayError("runtime.spec_invalid", error.message, param="egress") from None
    # Only what a rule names may be private: `public` alone leads to no private address, whatever the operator listed.
    private = {rule.host for rule in policy.rules} & {normal(name) for name in machine.private_ok}
    ports = PUBLIC_PORTS if PUBLIC in spec.egress else ()
    return EgressPolicy(policy.rules, frozenset(private), public=ports)


def _outside(policy: EgressPolicy | None) -> Outside | None:
    if policy is None:
        return None
    return Outside(
        rules=tuple((rule.host, rule.port) for rule in policy.rules),
        private_ok=tuple(sorted(policy.private_ok)),
        public=policy.public,
        doors=tuple((address, rule.host, rule.port) for address, rule in doors_of(policy)),
    )


def allowed_sockets(spec: InstanceSpec, host_sockets: Sequence[Path]) -> Iterator[Path]:
    """The host's sockets that `egress` names. Errors: `runtime.spec_invalid`, `runtime.egress_refused`."""
    for text in spec.egress:
        if not text.startswith(UNIX):
            continue
        try:
            path = Path(target_path(text.removeprefix(UNIX)))
        except HeadwayError:
            raise HeadwayError("runtime.spec_invalid", f"{text!r} names no socket", param="egress") from None
        real = Path(os.path.realpath(path))
        allowed = [Path(os.path.realpath(one)) for one in host_sockets]
        if not any(real == one or one in real.parents for one in allowed):
            raise HeadwayError("runtime.egress_refused", f"The operator did not allow {text}.", param="egress")
        if not (real.exists() and stat.S_ISSOCK(real.stat().st_mode)):
            raise HeadwayError("runtime.spec_invalid", f"{path} is no socket on this host", param="egress")
        yield path


def inside(relative: str, what: str) -> str:
    """A path of the tree, as the app sees it. Errors: `runtime.spec_invalid` for one that leaves it."""
    plain = posixpath.normpath(posixpath.join(WORKSPACE, relative))
    if "\0" in relative or not plain.startswith(WORKSPACE + "/"):
        raise HeadwayError("runtime.spec_invalid", f"{relative!r} is no place for {what} in the release")
    return plain


def make_volume(source: Path) -> None:
    """A volume's folder. Raises runtime.spec_invalid where a link stands in its place, and OSError."""
    if source.is_symlink():
        raise HeadwayError("runtime.spec_invalid", f"{source} is a link: a volume is a folder of its own")
    source.mkdir(parents=True, exist_ok=True)


def release(root: Path, source: Path, targets: Sequence[str]) -> Iterator[Bind | tuple[str, ...]]:
    """The tree at its place. Folders that volumes need and the tree lacks are made around it, not in it."""
    missing = [target for target in targets if not _is_folder(root / posixpath.relpath(target, WORKSPACE))]
    if not missing:
        yield Bind(source, WORKSPACE, writable=False)
        return
    wanted: set[str] = set()
    for target in missing:
        while target != WORKSPACE:
            wanted.add(target)
            target = posixpath.dirname(target)
    yield from _frame(root, source, WORKSPACE, wanted)


def _frame(root: Path, source: Path, at: str, wanted: set[str]) -> Iterator[Bind | tuple[str, ...]]:
    yield ("--dir", at)
    entries = sorted(os.scandir(root), key=lambda entry: entry.name) if root.is_dir() else []
    inner = {target for target in wanted if posixpath.dirname(target) == at}
    for entry in entries:
        place = f"{at}/{entry.name}"
        if place in inner:
            continue
        if entry.is_symlink():
            yield ("--symlink", os.readlink(entry.path), place)
        else:
            yield Bind(source / entry.name, place, writable=False)
    for place in sorted(inner):
        name = posixpath.basename(place)
        if any(target.startswith(place + "/") for target in wanted):
            if (root / name).is_symlink() or (root / name).is_file():
                raise HeadwayError(
                    "runtime.spec_invalid", f"{name} is a file in the release, and no place for a volume"
                )
            yield from _frame(root / name, source / name, place, wanted)
        else:
            yield ("--dir", place)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
