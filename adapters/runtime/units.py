"""The text of an instance's units: the same walls as bubblewrap's, in the words of systemd.exec(5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from adapters.runtime.driver import InstanceSpec
from adapters.sandbox.argv import FROM_ETC, SEARCH, TOP_LINKS

HOME = "/home/app"
TMP_SIZE, HOME_SIZE = "256M", "64M"
PAUSE = "1s"
# What `@system-service` holds and no app needs, beside the groups that it leaves out already.
DENIED = "~@mount @debug @keyring @clock @module @raw-io @reboot @swap @privileged @resources unshare setns"
ALLOWED_AGAIN = "sched_setaffinity sched_setscheduler setpriority ioprio_set mbind set_mempolicy prlimit64 setrlimit"
FAMILIES = "AF_UNIX AF_INET AF_INET6 AF_NETLINK"


@dataclass(frozen=True)
class Facts:
    """What the spec does not say. `once`: seconds that a one-off run may take."""

    name: str
    uid: int
    root: Path
    cwd: str
    volumes: tuple[tuple[Path, str], ...]
    sockets: tuple[Path, ...]
    toolchains: tuple[Path, ...]
    secrets: Path | None
    port: int | None
    once: float | None


def app_unit(spec: InstanceSpec, facts: Facts) -> str:
    """The app: in a network, an IPC namespace and a root of its own, under its environment's uid."""
    bounds = spec.bounds
    search = ":".join([*(f"{folder}/bin" for folder in facts.toolchains), SEARCH])
    env = {"PATH": search, "HOME": HOME, "TMPDIR": "/tmp", "LANG": "C.UTF-8", "USER": "app"}  # noqa: S108
    env |= {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "NODE_ENV": "production", **spec.env}
    env |= {"PORT": str(facts.port)} if facts.port is not None else {}
    shown = [Path("/usr"), *(Path("/", name) for name in TOP_LINKS if Path("/", name).exists())]
    shown += [Path("/etc", name) for name in FROM_ETC if Path("/etc", name).exists()]
    lines: list[tuple[str, object]] = [
        ("Type", "exec" if facts.once is None else "oneshot"),
        ("User", facts.uid),
        ("Group", facts.uid),
        ("WorkingDirectory", facts.cwd),
        ("ExecStart", f"/bin/sh -c {quoted(spec.command, dollars=True)}"),
        *(("Environment", quoted(f"{key}={value}")) for key, value in env.items()),
        *((("EnvironmentFile", specifiers(str(facts.secrets))),) if facts.secrets is not None else ()),
        ("TemporaryFileSystem", "/:ro"),
        ("TemporaryFileSystem", f"/tmp:rw,nosuid,nodev,size={TMP_SIZE},mode=1777"),  # noqa: S108
        ("TemporaryFileSystem", f"{HOME}:rw,nosuid,nodev,size={HOME_SIZE},mode=1777"),
        *(("BindReadOnlyPaths", bind(path, str(path))) for path in (*shown, *facts.toolchains)),
        ("BindReadOnlyPaths", bind(facts.root, "/workspace")),
        *(("BindPaths", bind(source, target)) for source, target in facts.volumes),
        *(("BindReadOnlyPaths", bind(path, str(path))) for path in facts.sockets),
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
        ("CapabilityBoundingSet", ""),
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
        ("MemoryMax", bounds.memory),
        ("MemorySwapMax", 0),
        ("TasksMax", bounds.pids),
        ("CPUQuota", f"{max(1, round(bounds.cpu * 100))}%"),
        ("LimitNOFILE", bounds.nofile),
        ("LimitCORE", 0),
        ("OOMPolicy", "continue"),
        ("KillMode", "control-group"),
        ("TimeoutStopSec", f"{spec.stop_grace:g}s"),
        ("StandardInput", "null"),
        ("StandardOutput", "journal"),
        ("StandardError", "journal"),
    ]
    if facts.once is None:
        lines += [("Restart", "always"), ("RestartSec", PAUSE)]
    else:
        lines.append(("TimeoutStartSec", f"{facts.once:g}s"))
    unit = [("Description", specifiers(f"Headway instance {spec.ref}")), ("StartLimitIntervalSec", "0")]
    return _text({"Unit": unit, "Service": lines})


def socket_unit(name: str, path: Path, mode: int) -> str:
    """The endpoint."""
    lines: list[tuple[str, object]] = [
        ("ListenStream", specifiers(str(path))),
        ("SocketMode", f"{mode:04o}"),
        ("Backlog", 4096),
        ("RemoveOnStop", "yes"),
        ("Service", f"{name}-door.service"),
    ]
    return _text({"Unit": [("Description", f"Endpoint of {name}")], "Socket": lines})


def door_unit(name: str, port: int, proxy: str) -> str:
    """Between the endpoint and the app, in the app's network. The app is not started by a connection."""
    unit: list[tuple[str, object]] = [
        ("Description", f"From the endpoint into {name}"),
        ("JoinsNamespaceOf", f"{name}.service"),
        ("After", f"{name}.service {name}.socket"),
        ("Requires", f"{name}.socket"),
    ]
    lines: list[tuple[str, object]] = [
        ("ExecStart", f"{proxy} 127.0.0.1:{port}"),
        ("PrivateNetwork", "yes"),
        ("DynamicUser", "yes"),
        ("ProtectSystem", "strict"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("RestrictAddressFamilies", FAMILIES),
        ("LimitNOFILE", 65536),
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
    """`source:target` as systemd splits it: its first reading keeps escapes, the second takes them off."""
    one, other = (re.sub(r"([\\\"':])", r"\\\1", specifiers(str(path))) for path in (source, target))
    return f'"{one}:{other}"'


def _escaped(text: str, *, keep_newlines: bool) -> str:
    out = text.replace("\\", "\\\\").replace('"', '\\"')
    if keep_newlines:
        return out.replace("$", "\\$").replace("`", "\\`")
    return out.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def _text(sections: Mapping[str, Iterable[tuple[str, object]]]) -> str:
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in lines) for name, lines in sections.items()
    )
