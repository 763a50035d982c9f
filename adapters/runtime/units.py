"""The text of an instance's units: the same walls as bubblewrap's, in the words of systemd.exec(5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.runtime import door, teller
from adapters.runtime.driver import InstanceSpec
from adapters.sandbox.argv import ALIASES, FROM_ETC, SEARCH, TOP_LINKS, missing_python

HOME = "/home/app"
TMP_SIZE, HOME_SIZE = "256M", "64M"
PAUSE = "1s"
# What `@system-service` holds and no app needs, beside the groups that it leaves out already.
DENIED = "~@mount @debug @keyring @clock @module @raw-io @reboot @swap @privileged @resources unshare setns"
ALLOWED_AGAIN = (
    "@setuid setgroups capset "  # for `setpriv`
    "sched_setaffinity sched_setscheduler setpriority ioprio_set mbind set_mempolicy prlimit64 setrlimit"
)
# What `setpriv` needs to give up the rest; nothing of it reaches the app.
RIGHTS = "CAP_SETUID CAP_SETGID CAP_SETPCAP"
DOOR_MEMORY, DOOR_TASKS = 96 << 20, 8
# The journal takes both streams of a unit for one: a level tells them apart.
JOURNAL, STDOUT, STDERR = Path("/run/systemd/journal/stdout"), "6", "3"
TOLD = f"/usr/bin/systemd-cat --level-prefix=false --priority={STDOUT} --stderr-priority={STDERR}"
# Also what runs with all rights runs in the unit's view. Only root passes this folder.
NOTES, ENDED = "/headway/instance", "ended"
NOTE = f'echo "$EXIT_CODE $EXIT_STATUS" >{NOTES}/{ENDED}'
# `RestartSteps=` came with systemd 254: each unit counts its own short runs, and waits before it begins again. In
# seconds: with `RestartSec` about as long as the embedded driver's pauses; a run of `CALM` is no short one.
SHORT, BEGAN, CALM = "short", "began", 60
WAIT = (
    f'n=0; [ ! -e {NOTES}/{SHORT} ] || read -r n <{NOTES}/{SHORT}; case "$n" in '
    "0|1) ;; 2) sleep 1 ;; 3) sleep 3 ;; 4) sleep 7 ;; *) sleep 29 ;; esac; "
    f"date +%s >{NOTES}/{BEGAN}"
)
COUNT = (
    f"n=0; [ ! -e {NOTES}/{SHORT} ] || read -r n <{NOTES}/{SHORT}; b=0; read -r b <{NOTES}/{BEGAN}; "
    f"[ $(($(date +%s) - b)) -lt {CALM} ] || n=0; echo $((n + 1)) >{NOTES}/{SHORT}"
)
FAMILIES = "AF_UNIX AF_INET AF_INET6 AF_NETLINK"


@dataclass(frozen=True)
class Facts:
    """What the spec does not say. `tree` is what is shown of the release, and where; `notes` the folder whose
    file ENDED says how the app ended last. `once`: seconds that a one-off run may take. `hidden`: the variables whose
    values are kept out of the journal.
    """

    name: str
    uid: int
    tree: tuple[tuple[Path, str], ...]
    cwd: str
    notes: Path
    volumes: tuple[tuple[Path, str], ...]
    sockets: tuple[Path, ...]
    toolchains: tuple[Path, ...]
    secrets: Path | None
    port: int | None
    once: float | None
    hidden: tuple[str, ...] = ()


def app_unit(spec: InstanceSpec, facts: Facts) -> str:
    """The app: in a network, an IPC namespace and a root of its own, under its environment's uid."""
    bounds = spec.bounds
    search = ":".join([*(f"{folder}/bin" for folder in facts.toolchains), SEARCH])
    env = {"PATH": search, "HOME": HOME, "TMPDIR": "/tmp", "LANG": "C.UTF-8", "USER": "app"}  # noqa: S108
    env |= {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "NODE_ENV": "production", **spec.env}
    env |= {"PORT": str(facts.port)} if facts.port is not None else {}
    shown = [Path("/usr"), *(Path("/", name) for name in TOP_LINKS if Path("/", name).exists())]
    shown += [Path("/etc", name) for name in FROM_ETC if Path("/etc", name).exists()]
    words, memory, tasks = ["/bin/sh", "-c", spec.command], bounds.memory, bounds.pids
    told: list[tuple[Path, str]] = []
    if facts.hidden:
        # A stop signals all of the unit: what stands in front of the app passes nothing on.
        words = teller.command(facts.hidden, words, passes=False, foreign=False)
        told, memory, tasks = teller.shown(foreign=False), memory + teller.MEMORY, tasks + teller.PROCESSES
    command = " ".join(quoted(word, dollars=True) for word in words)
    python = missing_python(facts.toolchains)
    given = spec.given.absolute() if spec.given is not None and facts.once is not None else None
    lines: list[tuple[str, object]] = [
        ("Type", "exec" if facts.once is None else "oneshot"),
        ("WorkingDirectory", facts.cwd),
        ("ExecStart", f"{_dropped(facts.uid)} {TOLD} --identifier={facts.name} {command}"),
        ("ExecStopPost", f"+/bin/sh -c {quoted(NOTE if facts.once is not None else f'{NOTE}; {COUNT}', dollars=True)}"),
        *(("Environment", quoted(f"{key}={value}")) for key, value in env.items()),
        *((("EnvironmentFile", specifiers(str(facts.secrets))),) if facts.secrets is not None else ()),
        ("TemporaryFileSystem", "/:ro"),
        ("TemporaryFileSystem", f"/tmp:rw,nosuid,nodev,size={TMP_SIZE},mode=1777"),  # noqa: S108
        ("TemporaryFileSystem", f"{HOME}:rw,nosuid,nodev,size={HOME_SIZE},mode=1777"),
        *(("BindReadOnlyPaths", bind(path, str(path))) for path in (*shown, *facts.toolchains)),
        *(("BindReadOnlyPaths", bind(source, target)) for source, target in (*facts.tree, *told)),
        *(("BindPaths", bind(source, target)) for source, target in (*facts.volumes, (facts.notes, NOTES))),
        *(("BindReadOnlyPaths", bind(path, str(path))) for path in (JOURNAL, *facts.sockets)),
        *((("BindReadOnlyPaths", bind(Path(python), f"{ALIASES}/python")),) if python is not None else ()),
        ("MountAPIVFS", "yes"),
        ("PrivateNetwork", "yes"),
        ("PrivateIPC", "yes"),
        ("PrivateDevices", "yes"),
        ("ProtectHostname", "yes"),
        ("ProtectProc", "invisible"),
        ("ProcSubset", "pid"),
        ("ProtectKernelTunables", "yes"),
        ("ProtectKernelModules", "yes"),
        ("ProtectKernelLogs", "yes"),
        ("ProtectControlGroups", "yes"),
        ("ProtectClock", "yes"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", RIGHTS),
        ("AmbientCapabilities", ""),
        ("RestrictNamespaces", "yes"),
        ("RestrictSUIDSGID", "yes"),
        ("RestrictRealtime", "yes"),
        ("RestrictAddressFamilies", FAMILIES),
        ("LockPersonality", "yes"),
        ("RemoveIPC", "yes"),
        ("KeyringMode", "private"),
        ("SystemCallArchitectures", "native"),
        ("SystemCallFilter", "@system-service"),
        ("SystemCallFilter", DENIED),
        ("SystemCallFilter", ALLOWED_AGAIN),
        ("SystemCallErrorNumber", "EPERM"),
        ("UMask", "0022"),
        ("MemoryMax", memory),
        ("MemorySwapMax", 0),
        ("TasksMax", tasks),
        ("CPUQuota", f"{max(1, round(bounds.cpu * 100))}%"),
        ("LimitNOFILE", bounds.nofile),
        ("LimitCORE", 0),
        ("OOMPolicy", "continue"),
        ("KillMode", "control-group"),
        ("TimeoutStopSec", f"{spec.stop_grace:g}s"),
        ("StandardInput", f"file:{specifiers(str(given))}" if given is not None else "null"),
        ("StandardOutput", "journal"),
        ("StandardError", "journal"),
    ]
    if facts.once is None:
        lines += [("Restart", "always"), ("RestartSec", PAUSE), ("TimeoutStartSec", "90s")]
        lines += [("ExecStartPre", f"+/bin/sh -c {quoted(WAIT, dollars=True)}")]
    else:
        lines += [("TimeoutStartSec", f"{facts.once:g}s"), ("TimeoutStartFailureMode", "kill")]
    unit = [("Description", specifiers(f"Headway instance {spec.ref}")), ("StartLimitIntervalSec", "0")]
    return _text({"Unit": unit, "Service": lines})


def _dropped(uid: int) -> str:
    """`User=` refuses a uid that no user database knows. What is left of root's rights goes before the app begins."""
    return f"/usr/bin/setpriv --reuid={uid} --regid={uid} --clear-groups --bounding-set=-all"


def door_unit(name: str, uid: int, command: Sequence[str], folder: Path, grace: float) -> str:
    """Between the endpoint in `folder` and the app, in the app's network."""
    unit: list[tuple[str, object]] = [
        ("Description", f"From the endpoint into {name}"),
        ("JoinsNamespaceOf", f"{name}.service"),
        ("After", f"{name}.service"),
        ("StartLimitIntervalSec", "0"),
    ]
    words = " ".join(quoted(word, dollars=True) for word in command)
    lines: list[tuple[str, object]] = [
        ("Type", "exec"),
        ("ExecStart", f"{_dropped(uid)} {words}"),
        ("TemporaryFileSystem", "/:ro"),
        *(("BindReadOnlyPaths", bind(source, target)) for source, target in door.shown()),
        ("BindPaths", bind(folder, door.FOLDER)),
        ("PrivateNetwork", "yes"),
        ("PrivateDevices", "yes"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", RIGHTS),
        ("RestrictAddressFamilies", FAMILIES),
        ("SystemCallFilter", "@system-service"),
        ("MemoryMax", DOOR_MEMORY),
        ("TasksMax", DOOR_TASKS),
        ("LimitNOFILE", 65536),
        ("TimeoutStopSec", f"{grace:g}s"),
        ("Restart", "always"),
        ("RestartSec", "100ms"),
    ]
    return _text({"Unit": unit, "Service": lines})


def environment_file(values: Mapping[str, str]) -> str:
    """As `EnvironmentFile=` reads it: in double quotes, newlines kept."""
    return "".join(f'{key}="{_escaped(value, keep_newlines=True)}"\n' for key, value in values.items())


def quoted(text: str, *, dollars: bool = False) -> str:
    """One word of a unit file that means exactly `text`. `dollars`: in a command line, where `$` would expand."""
    plain = specifiers(_escaped(text, keep_newlines=False))
    return '"' + (plain.replace("$", "$$") if dollars else plain) + '"'


def specifiers(text: str) -> str:
    return text.replace("%", "%%")


def bind(source: Path, target: str) -> str:
    """`source:target` as systemd splits it: some versions in one reading, where a quoted colon parts nothing, others in
    two, of which the second takes escapes off."""
    one, other = (re.sub(r"([\\\"':])", r"\\\1", specifiers(str(path))) for path in (source, target))
    return f'"{one}":"{other}"'


def _escaped(text: str, *, keep_newlines: bool) -> str:
    out = text.replace("\\", "\\\\").replace('"', '\\"')
    if keep_newlines:
        return out.replace("$", "\\$").replace("`", "\\`")
    return out.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def _text(sections: Mapping[str, Iterable[tuple[str, object]]]) -> str:
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in lines) for name, lines in sections.items()
    )
