"""The plan: what a stack consists of, as plain data that is written to the folder and carried out by any supervisor."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from headway.supervisor.becoming import User
from headway.supervisor.folder import Folder, invalid, read_json, write_json

VERSION: Final = 1
# What any process may inherit from whoever called `up`; everything else is named by the component.
INHERITED: Final = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
]


@dataclass(frozen=True)
class Component:
    """One process of the stack.

    `env` holds no secrets: `secrets` maps a variable to where its value is looked up at the start, `env:NAME` or
    `json:<file>#<key>.<key>…`. `ready` are checks that must all hold: `tcp://127.0.0.1:N`, `http://127.0.0.1:N/path`
    (any answer below 500), `unix:///path`, `file:///path`. `once` marks a task: it is ready when it has exited
    with 0. `after` names what must be ready first. A first start fails after `tries` deaths, or `patience` seconds
    without an answer. Stops go from the highest `tier` down, `grace` seconds each.
    `leftovers` are sockets that an earlier server may have left, and that are removed before a start.
    `user` is the uid that it runs under (None: the supervisor's). `nursery`: one of our roles, forked from a process
    that has imported what they share, where that runs; a task too, where the supervisor is told how it ended.
    """

    name: str
    argv: tuple[str, ...]
    title: str = ""
    env: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    ready: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    once: bool = False
    tier: int = 0
    grace: float = 10.0
    patience: float = 120.0
    tries: int = 3
    cwd: str = "/"
    umask: int = 0o022
    ports: dict[str, int] = field(default_factory=dict)
    leftovers: tuple[str, ...] = ()
    user: User | None = None
    nursery: bool = False

    def fingerprint(self) -> str:
        """Changes when a running process no longer is what this component describes."""
        user = asdict(self.user) if self.user is not None else None
        facts = [self.argv, sorted(self.env.items()), sorted(self.secrets), self.cwd, user]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    def environment(self, folder: Folder) -> dict[str, str]:
        """Everything the process gets, secrets included; raises `stack.folder_invalid` for a missing secret."""
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        ready = {"HEADWAY_READY_FILE": str(folder.ready(self.name))}
        return {**inherited, **ready, **self.env, **{name: _look_up(at, folder) for name, at in self.secrets.items()}}


def _look_up(place: str, folder: Folder) -> str:
    kind, _, rest = place.partition(":")
    if kind == "env":
        return os.environ.get(rest, "")
    name, _, keys = rest.partition("#")
    value: Any = read_json(folder.path(name))
    try:
        for key in keys.split("."):
            value = value[int(key)] if key.isdigit() else value[key]
    except (KeyError, IndexError, TypeError):
        raise invalid(
            f"{folder.path(name)} holds no {keys}: restore it, or move it away to have it made anew."
        ) from None
    return str(value)


@dataclass(frozen=True)
class Plan:
    """`endpoints` is what endpoints.json will say; `hints` are lines to print when everything is healthy."""

    components: tuple[Component, ...]
    endpoints: dict[str, str] = field(default_factory=dict)
    hints: tuple[tuple[str, str], ...] = ()

    def write(self, folder: Folder) -> None:
        write_json(folder.plan, {"version": VERSION, **asdict(self)})

    @classmethod
    def read(cls, folder: Folder) -> Plan:
        raw = read_json(folder.plan)
        try:
            if raw.pop("version") != VERSION:
                raise invalid(f"{folder.plan} is of another version of Headway: run `headway up` again.")
            return cls(
                components=tuple(_component(one) for one in raw["components"]),
                endpoints=dict(raw["endpoints"]),
                hints=tuple((str(a), str(b)) for a, b in raw["hints"]),
            )
        except (KeyError, TypeError, ValueError):
            raise invalid(f"{folder.plan} is damaged: run `headway up` again.") from None


def _component(raw: dict[str, Any]) -> Component:
    tuples = {name: tuple(raw[name]) for name in ("argv", "ready", "after")}
    tuples["leftovers"] = tuple(raw.get("leftovers", ()))
    user = User.of(raw["user"]) if raw.get("user") is not None else None
    return Component(**{**raw, **tuples, "user": user})
