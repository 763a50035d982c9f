"""What an artifact was made of, by the command line against the whole stack."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

from tests.stack.conftest import NewPlace
from tests.stack.test_cli_pipeline import Terminal, terminal  # noqa: F401

# ruff: noqa: F811
pytestmark = pytest.mark.slow
CONFIG = '[build]\ncommand = "mkdir -p out; cp index.html out"\noutput = "out"\n'


def lock(**versions: str) -> str:
    packages = {f"node_modules/{name}": {"version": version} for name, version in versions.items()}
    return json.dumps({"lockfileVersion": 3, "packages": packages})


def test_a_bill_is_signed_for_shown_and_compared(new_place: NewPlace, terminal: Terminal) -> None:
    place = new_place({"index.html": "one\n", "headway.toml": CONFIG, "package-lock.json": lock(a="1.0.0", b="1.0.0")})
    first = place.build("main")["artifact_id"]
    place.repository.commit({"index.html": "two\n", "package-lock.json": lock(a="2.0.0", b="1.0.0")})
    second = place.build("main")["artifact_id"]
    document = terminal.run(f"headway artifacts sbom {first} --json").json
    assert [one["purl"] for one in document["components"]] == ["pkg:npm/a@1.0.0", "pkg:npm/b@1.0.0"]
    shown = terminal.run(f"headway artifacts sbom {second} --against {first} --json").json["changes"]
    assert shown == [{"package": "pkg:npm/a", "before": "1.0.0", "after": "2.0.0"}]
    assert "pkg:npm/a" in terminal.run(f"headway artifacts sbom {second}").out

    of = place.path(place.site.staging, "artifacts", first)
    raw = place.caller.http.get(f"{of}/sbom").content
    bundle = place.caller.http.get(f"{of}/bundle").json()
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    (named,) = statement["predicate"]["runDetails"]["byproducts"]
    assert named["digest"]["sha256"] == hashlib.sha256(raw).hexdigest()
    terminal.run(f"headway artifacts fetch {first} --output {terminal.home / 'fetched'}")
