"""The bill as CycloneDX 1.6 in JSON: canonical bytes, the same for the same build, whenever it runs.

Source: CycloneDX 1.6 (ECMA-424). Written here and not by the project's own library, which is the tests' judge instead:
its cost grows with the square of the components (docs/decisions/0027).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import rfc8785

from adapters.sbom.component import Component
from headway.errors import HeadwayError

SPEC: Final = "1.6"
MEDIA_TYPE: Final = "application/vnd.cyclonedx+json; version=1.6"
MAX_BYTES: Final = 16 << 20
MAX_COMPONENTS: Final = 20_000
_NAMES: Final = uuid.UUID("5f2a9a0e-53a8-5d0b-9c57-0f9c6c9f3a11")


@dataclass(frozen=True)
class Subject:
    """What the bill is of: a site's artifact (`digest` is its manifest's sha256), made of a commit at a time (Unix)."""

    site_id: str
    digest: str
    commit_sha: str
    commit_time: int
    toolchain: tuple[tuple[str, str], ...] = ()


def make_sbom(subject: Subject, components: Iterable[Component]) -> bytes:
    """Duplicates become one; past `MAX_COMPONENTS` the bill says that it is not whole."""
    found = _merged(components)
    kept, whole = found[:MAX_COMPONENTS], len(found) <= MAX_COMPONENTS
    root = {
        "type": "application",
        "bom-ref": subject.site_id,
        "name": subject.site_id,
        "version": subject.commit_sha,
        "hashes": [{"alg": "SHA-256", "content": subject.digest}],
    }
    document = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMES, f'{subject.site_id} {subject.digest} {subject.commit_sha}')}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(subject.commit_time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [_tool(name, version) for name, version in sorted(subject.toolchain)]},
            "component": root,
        },
        "components": [_shown(one) for one in kept],
        "dependencies": [{"ref": subject.site_id, "dependsOn": [one.purl for one in kept]}],
        # Lock files do not name what a build fetches by itself, and nothing here claims so.
        "compositions": [{"aggregate": "unknown" if whole else "incomplete", "assemblies": [subject.site_id]}],
    }
    return rfc8785.dumps(document)  # type: ignore[arg-type]


def components_of(raw: bytes) -> dict[str, str]:
    """Version(s) by package URL without its version. Raises sign.failed where it is no bill of ours."""
    found: dict[str, set[str]] = {}
    for one in parse_sbom(raw)["components"]:
        name, _, version = str(one.get("purl", "")).rpartition("@")
        found.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(versions)) for name, versions in found.items()}


def parse_sbom(raw: bytes) -> dict[str, Any]:
    """Raises sign.failed."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("bomFormat") != "CycloneDX" or len(raw) > MAX_BYTES:
        raise HeadwayError("sign.failed", "The bill of materials is no CycloneDX document.")
    components = document.get("components")
    if not isinstance(components, list) or not all(isinstance(one, dict) for one in components):
        raise HeadwayError("sign.failed", "The bill of materials lists no components.")
    return document


def _merged(components: Iterable[Component]) -> list[Component]:
    """By package URL: who names a hash wins, and what anybody needs is not optional."""
    by_purl: dict[str, Component] = {}
    for one in sorted(components, key=lambda one: (one.purl, not one.hashes, not one.license, one.source)):
        known = by_purl.setdefault(one.purl, one)
        if known.optional and not one.optional:
            by_purl[one.purl] = Component(
                known.kind, known.name, known.version, known.hashes, known.license, False, known.source
            )
    return [by_purl[purl] for purl in sorted(by_purl)]


def _shown(one: Component) -> dict[str, Any]:
    group, _, name = one.name.rpartition("/") if one.kind == "npm" else ("", "", one.name)
    shown: dict[str, Any] = {
        "type": "library",
        "bom-ref": one.purl,
        "name": name,
        "version": one.version,
        "purl": one.purl,
        "properties": [{"name": "headway:source", "value": one.source}],
    }
    if group:
        shown["group"] = group
    if one.hashes:
        shown["hashes"] = [{"alg": algorithm, "content": value} for algorithm, value in one.hashes]
    if one.license:
        shown["licenses"] = [{"license": {"name": one.license}}]
    if one.optional:
        shown["scope"] = "optional"
    return shown


def _tool(name: str, version: str) -> dict[str, str]:
    return {"type": "application", "name": name, "version": version}
