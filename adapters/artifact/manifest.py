"""The manifest: what an artifact is. Its bytes are canonical JSON (RFC 8785), its sha256 is the artifact's digest.

Shape: `{"version": 1, "kind", "entrypoint", "run", "port", "health_path", "static", "files": […]}` with one entry per
file (`{"path", "mode": "644"|"755", "size", "sha256"}`) or symbolic link (`{"path", "link"}`), sorted by the bytes of
their paths. There are no times in it and nothing of the build that made it: equal trees have equal digests.
`run` is null for `static` and `RunSettings.as_dict()` for `dynamic`, whose `port` and `health_path` repeat it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal, cast

from adapters.artifact.paths import escaped, link_fault, path_fault
from adapters.artifact.rules import StaticRules, parse_rules
from adapters.artifact.run import RunSettings, parse_run
from headway.errors import HeadwayError

Kind = Literal["static", "dynamic"]
Mode = Literal["644", "755"]

VERSION: Final = 1
MAX_FILES: Final = 100_000
MAX_BYTES: Final = 64 << 20
# Above 2^53 a number in JSON has no exact canonical form (RFC 8785, section 3.2.2.3).
MAX_SIZE: Final = 2**53 - 1

_HEX = re.compile(r"[0-9a-f]{64}")
_KEYS = {"version", "kind", "entrypoint", "run", "port", "health_path", "static", "files"}


@dataclass(frozen=True, slots=True)
class File:
    path: str
    mode: Mode
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link; `target` is relative and stays inside."""

    path: str
    target: str


Entry = File | Link


@dataclass(frozen=True)
class Manifest:
    entries: tuple[Entry, ...]
    kind: Kind = "static"
    entrypoint: str | None = None
    run: RunSettings | None = None
    static: StaticRules = field(default_factory=StaticRules)

    @property
    def port(self) -> int | None:
        return self.run.port if self.run else None

    @property
    def health_path(self) -> str | None:
        return self.run.health.path if self.run else None

    @property
    def files(self) -> Iterator[File]:
        return (one for one in self.entries if isinstance(one, File))

    @property
    def links(self) -> Iterator[Link]:
        return (one for one in self.entries if isinstance(one, Link))

    @cached_property
    def contents(self) -> Mapping[str, int]:
        """Size by sha256, each content once, in the order of its first path. Made once: it is asked file by file."""
        return {one.sha256: one.size for one in self.files}

    @property
    def size_bytes(self) -> int:
        return sum(one.size for one in self.files)

    @cached_property
    def raw(self) -> bytes:
        """The canonical bytes."""
        return canonical(
            {
                "version": VERSION,
                "kind": self.kind,
                "entrypoint": self.entrypoint,
                "run": self.run.as_dict() if self.run else None,
                "port": self.port,
                "health_path": self.health_path,
                "static": self.static.as_dict() if self.static else None,
                "files": [_entry_dict(one) for one in self.entries],
            }
        )

    @cached_property
    def digest(self) -> str:
        """Lower-case hex."""
        return hashlib.sha256(self.raw).hexdigest()


def canonical(document: dict[str, Any]) -> bytes:
    """RFC 8785 bytes of a document whose keys are ASCII and whose numbers are integers below 2^53.

    For such documents the standard encoder gives them too, twenty times faster (held by a property test).
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def make_manifest(
    entries: list[Entry],
    *,
    static: StaticRules | None = None,
    entrypoint: str | None = None,
    run: RunSettings | None = None,
) -> Manifest:
    """Sort and check the entries: of a dynamic artifact where there is a `run`. Raises build.output_invalid."""
    ordered = tuple(sorted(entries, key=_by_path))
    _check_entries(ordered, "build.output_invalid")
    kind: Kind = "static" if run is None else "dynamic"
    return Manifest(entries=ordered, kind=kind, static=static or StaticRules(), entrypoint=entrypoint, run=run)


def parse_manifest(raw: bytes, *, digest: str | None = None) -> Manifest:
    """Read untrusted bytes strictly: everything known, in range, sorted and canonical.

    Raises roll.verify_failed, also where the sha256 is not `digest` (lower-case hex).
    """
    if len(raw) > MAX_BYTES:
        raise _bad("is larger than 64 MiB")
    if digest is not None and hashlib.sha256(raw).hexdigest() != digest:
        raise _bad("does not have the digest that was signed")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise _bad("is not JSON") from None
    if not isinstance(document, dict) or set(document) != _KEYS or document["version"] != VERSION:
        raise _bad(f"does not have the keys of version {VERSION}")
    manifest = _read(document)
    _check_entries(manifest.entries, "roll.verify_failed")
    try:
        canonical_form = manifest.raw == raw
    except UnicodeEncodeError:
        canonical_form = False
    if not canonical_form:
        raise _bad("is not in canonical form")
    return manifest


def _read(document: dict[str, Any]) -> Manifest:
    kind, raw_run, static = document["kind"], document["run"], document["static"]
    if kind not in ("static", "dynamic"):
        raise _bad("has an unknown kind")
    if (kind == "dynamic") != (raw_run is not None) or (raw_run is not None and static is not None):
        raise _bad("has not the settings of its kind")
    entrypoint = document["entrypoint"]
    if entrypoint is not None and not (isinstance(entrypoint, str) and len(entrypoint) <= 4096):
        raise _bad("has a bad entrypoint")
    files = document["files"]
    if not isinstance(files, list) or len(files) > MAX_FILES:
        raise _bad(f"lists no files, or more than {MAX_FILES}")
    manifest = Manifest(
        entries=tuple(map(_read_entry, files)),
        kind=cast(Kind, kind),
        entrypoint=entrypoint,
        run=None if raw_run is None else parse_run(raw_run, _bad_key),
        static=StaticRules() if static is None else parse_rules(static, _bad_key),
    )
    # `True == 1` and `1.0 == 1`, but not in canonical form, which is compared too.
    if (document["port"], document["health_path"]) != (manifest.port, manifest.health_path):
        raise _bad("has another port or health_path than its run")
    return manifest


def _read_entry(raw: object) -> Entry:
    match raw:
        case {"path": str(path), "link": str(target), **rest} if not rest:
            return Link(path, target)
        case {"path": str(path), "mode": "644" | "755" as mode, "size": size, "sha256": str(sha256), **rest} if (
            not rest and type(size) is int and 0 <= size <= MAX_SIZE and _HEX.fullmatch(sha256)
        ):
            return File(path, mode, size, sha256)
    raise _bad("has an entry of unknown shape")


def _entry_dict(entry: Entry) -> dict[str, Any]:
    if isinstance(entry, Link):
        return {"path": entry.path, "link": entry.target}
    return {"path": entry.path, "mode": entry.mode, "size": entry.size, "sha256": entry.sha256}


def _check_entries(entries: tuple[Entry, ...], code: str) -> None:
    """Paths are clean, sorted and unique; nothing lies below a file or a link; links stay inside."""
    links = {one.path: one.target for one in entries if isinstance(one, Link)}
    taken = {one.path for one in entries}
    sizes: dict[str, int] = {}
    parents: set[str] = set()
    last = b""
    for one in entries:
        fault = path_fault(one.path) or (link_fault(one.path, links) if isinstance(one, Link) else None)
        if fault:
            raise HeadwayError(code, f"{escaped(one.path)} {fault}.", path=escaped(one.path))
        name = _by_path(one)
        if name <= last:
            raise HeadwayError(code, f"{escaped(one.path)} is listed twice or out of order.")
        last = name
        if isinstance(one, File) and sizes.setdefault(one.sha256, one.size) != one.size:
            raise HeadwayError(code, f"{escaped(one.path)} has a size that its content cannot have.")
        parent = one.path.rpartition("/")[0]
        while parent and parent not in parents:
            parents.add(parent)
            parent = parent.rpartition("/")[0]
    for path in parents & taken:
        raise HeadwayError(code, f"{escaped(path)} is listed as a file and as a folder.")


def _by_path(entry: Entry) -> bytes:
    # A name that is not UTF-8 is refused by name, not by a failure to sort it.
    return entry.path.encode("utf-8", "surrogatepass")


def _bad_key(key: str, why: str) -> HeadwayError:
    return _bad(f"{key} {why}")


def _bad(why: str) -> HeadwayError:
    return HeadwayError("roll.verify_failed", f"The manifest {why}.")
