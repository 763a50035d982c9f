"""What a builder remembers of commits that it has looked at: the same one again need not be unpacked to be judged."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from adapters.plan.part import Tools
from adapters.plan.plan import Plan
from adapters.source.git import Checkout
from headway.broker import BuildSpec

MOST: Final = 256
# Site, profile, and what the request says over detection: with the commit and the programs they decide on the plan.
Key = tuple[str, str, str]


def key_of(spec: BuildSpec) -> Key:
    said = spec.overrides.model_dump() if spec.overrides else None
    return spec.site_id, spec.profile, json.dumps(said, sort_keys=True)


@dataclass
class Asked:
    """The programs that a detection asks for, with what it was told."""

    tools: Tools
    told: dict[str, str | None] = field(default_factory=dict)

    def __call__(self, name: str) -> str | None:
        self.told[name] = self.tools(name)
        return self.told[name]


@dataclass(frozen=True)
class Seen:
    """A commit and the plan that was made of it, with these programs (version by name, None: not there)."""

    checkout: Checkout
    plan: Plan
    programs: Mapping[str, str | None]


class Memory:
    """Of this process alone, and bounded: what was asked for longest ago is forgotten first. Thread-safe."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._seen: OrderedDict[Key, Seen] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: Key, tools: Tools | None) -> Seen | None:
        """The last commit, as long as the programs are the same."""
        with self._lock:
            seen = self._seen.get(key)
            if seen is not None:
                self._seen.move_to_end(key)
        if seen is None or any(tools is None or tools(name) != version for name, version in seen.programs.items()):
            return None
        return seen

    def keep(self, key: Key, seen: Seen) -> None:
        with self._lock:
            self._seen[key] = seen
            self._seen.move_to_end(key)
            while len(self._seen) > self._most:
                self._seen.popitem(last=False)
