"""The layout: in which pack each content of an artifact lies. A sidecar: moving contents changes no digest.

Shape: `{"version": 1, "packs": [sha256…], "contents": {sha256: [index of the pack, offset, size]}}`, canonical JSON.
It needs no signature: whoever reads a content hashes it against the manifest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from adapters.artifact.manifest import MAX_SIZE, canonical
from headway.errors import HeadwayError

MAX_PACKS: Final = 16
# So many bytes more than have to be are packed again at once, so that it is not the next commit's turn as well.
AT_ONCE: Final = 512 << 10
MAX_BYTES: Final = 64 << 20

_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Location:
    """`size` bytes at `offset` of the pack with this sha256."""

    pack: str
    offset: int
    size: int


@dataclass(frozen=True)
class Layout:
    contents: Mapping[str, Location]

    @property
    def packs(self) -> list[str]:
        """The packs that it needs, sorted."""
        return sorted({one.pack for one in self.contents.values()})

    @property
    def raw(self) -> bytes:
        packs = self.packs
        index = {pack: i for i, pack in enumerate(packs)}
        contents = {sha: [index[one.pack], one.offset, one.size] for sha, one in self.contents.items()}
        return canonical({"version": 1, "packs": packs, "contents": contents})


@dataclass(frozen=True)
class Reuse:
    """`missing` contents have to be uploaded in one new pack; the packs in `kept` hold all the others."""

    missing: list[str]
    kept: list[str]


def plan_reuse(wanted: Mapping[str, int], held: Mapping[str, Location], limit: int = MAX_PACKS) -> Reuse:
    """Which contents to upload so that the artifact needs at most `limit` packs, the new one included.

    `wanted` maps sha256 to size. Where too many packs would be needed, those that give the fewest bytes are given up
    and their contents go into the new pack (repack): as few as possible, and more, down to half of the limit, as long
    as they are small.
    """
    gives: dict[str, int] = {}
    for sha in wanted:
        if sha in held:
            gives[held[sha].pack] = gives.get(held[sha].pack, 0) + wanted[sha]
    new_pack = any(sha not in held for sha in wanted)
    kept = sorted(gives, key=lambda pack: (-gives[pack], pack))
    if len(kept) + new_pack > limit:
        kept, given_up = kept[: limit - 1], kept[limit - 1 :]
        spare = AT_ONCE - sum(gives[pack] for pack in given_up)
        while len(kept) > limit // 2 and gives[kept[-1]] <= spare:
            spare -= gives[kept.pop()]
    keep = set(kept)
    missing = [sha for sha in wanted if sha not in held or held[sha].pack not in keep]
    return Reuse(missing, sorted(keep))


def make_layout(wanted: Mapping[str, int], located: Mapping[str, Location]) -> Layout:
    """The layout of an artifact whose contents are `wanted` (sha256 → size). Raises internal.error on a gap."""
    for sha, size in wanted.items():
        if sha not in located or located[sha].size != size:
            raise HeadwayError("internal.error", f"No pack holds the content {sha[:12]}….")
    return Layout({sha: located[sha] for sha in wanted})


def parse_layout(raw: bytes) -> Layout:
    """Read untrusted bytes strictly. Raises roll.verify_failed."""
    if len(raw) > MAX_BYTES:
        raise _bad("is larger than 64 MiB")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise _bad("is not JSON") from None
    match document:
        case {"version": 1, "packs": list(packs), "contents": dict(contents), **rest} if not rest:
            pass
        case _:
            raise _bad("does not have the keys of version 1")
    if len(packs) > MAX_PACKS or not all(isinstance(one, str) and _HEX.fullmatch(one) for one in packs):
        raise _bad("names its packs badly")
    return Layout({_content(sha): _location(packs, where) for sha, where in contents.items()})


def _content(sha: str) -> str:
    if not _HEX.fullmatch(sha):
        raise _bad("names a content badly")
    return sha


def _location(packs: list[str], where: object) -> Location:
    match where:
        case [int(index), int(offset), int(size)] if (
            0 <= index < len(packs) and 0 <= offset <= MAX_SIZE and 0 <= size <= MAX_SIZE
        ):
            return Location(packs[index], offset, size)
    raise _bad("has a location of unknown shape")


def _bad(why: str) -> HeadwayError:
    return HeadwayError("roll.verify_failed", f"The layout {why}.")
