"""What a keeper is told at its start, decided beforehand: it needs to know nothing about sandboxes, uids or egress.

Recipes travel through a pipe and are never written down; they hold no secrets all the same.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from adapters.runtime.driver import Bounds

PLACE = "\0"  # stands before the number of a piece of data, in an option that names a descriptor


@dataclass(frozen=True)
class Pace:
    """Seconds: the first pause before a restart, the longest, and how long a run must last to count as calm.

    After `deaths` short runs the instance is said to be in a crash loop; it is still tried, at the longest pause.
    """

    first: float = 0.5
    most: float = 30.0
    calm: float = 60.0
    deaths: int = 5

    def pause(self, deaths: int) -> float:
        return self.most if deaths >= self.deaths else min(self.most, self.first * 2 ** max(0, deaths - 1))


@dataclass(frozen=True)
class Outside:
    """The way out: `rules` and `private_ok` as `EgressPolicy` has them, `doors` are (loopback address, host, port)."""

    rules: tuple[tuple[str, int], ...]
    private_ok: tuple[str, ...]
    public: tuple[int, ...]
    doors: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True)
class Opener:
    """How the frozen configuration is opened: `function` is `module:name`, called with `sealed` and `key_file`."""

    sealed: str
    key_file: str
    function: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """`words` start bubblewrap, `options` go to it by descriptor, `data` are the contents that options refer to.

    `socket` is the endpoint's path (None: nobody is served); `port` what the app listens on inside. `cgroup` is
    `(version, {controller: folder}, name)`. `once`: seconds that a one-off run may take; it is not started again.
    `given` is the path of what it finds on its standard input.
    """

    folder: str
    control: str
    words: tuple[str, ...]
    options: tuple[str, ...]
    data: tuple[bytes, ...]
    command: tuple[str, ...]
    mark: str
    bounds: Bounds
    stop_grace: float
    port: int | None = None
    socket: str | None = None
    socket_mode: int = 0o600
    socket_gid: int = -1
    cgroup: tuple[int, dict[str, str], str] | None = None
    tasks: int | None = None
    outside: Outside | None = None
    opener: Opener | None = None
    once: float | None = None
    given: str | None = None
    pace: Pace = field(default_factory=Pace)

    def dump(self) -> bytes:
        raw = asdict(self) | {"data": [base64.b64encode(piece).decode() for piece in self.data]}
        return json.dumps(raw).encode()

    @classmethod
    def load(cls, text: bytes) -> Recipe:
        raw: dict[str, Any] = json.loads(text)
        raw["data"] = tuple(base64.b64decode(piece) for piece in raw["data"])
        raw["bounds"], raw["pace"] = Bounds(**raw["bounds"]), Pace(**raw["pace"])
        if (out := raw["outside"]) is not None:
            raw["outside"] = Outside(
                tuple((host, port) for host, port in out["rules"]),
                tuple(out["private_ok"]),
                tuple(out["public"]),
                tuple((address, host, port) for address, host, port in out["doors"]),
            )
        if raw["opener"] is not None:
            raw["opener"] = Opener(**raw["opener"] | {"paths": tuple(raw["opener"]["paths"])})
        for name in ("words", "options", "command"):
            raw[name] = tuple(raw[name])
        if raw["cgroup"] is not None:
            raw["cgroup"] = tuple(raw["cgroup"])
        return cls(**{one.name: raw[one.name] for one in fields(cls) if one.name in raw})


class Pieces:
    """Stands in for descriptors while options are written: remembers the contents."""

    def __init__(self) -> None:
        self.data: list[bytes] = []

    def hold(self, name: str, content: bytes) -> str:
        del name
        self.data.append(content)
        return f"{PLACE}{len(self.data) - 1}"
