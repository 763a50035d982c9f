"""A whole stack without signing keys: a private Sigstore of the tests signs, the host believes it alone."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.client import Caller
from bench.stack import HEADWAY, Stack
from tests.adapters.repositories import Repository
from tests.adapters.sigstore_instance import IDENTITY, Instance, running_instance
from tests.stack.sites import Place, end_of

pytestmark = pytest.mark.slow


@dataclass
class Ground:
    stack: Stack
    instance: Instance
    place: Place
    token: Path


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with tempfile.TemporaryDirectory(prefix="hwq-") as name, running_instance() as instance:
        folder = Path(name)
        (folder / "trust.json").write_text(json.dumps(instance.trust_config()))
        token = folder / "token"
        token.write_text(instance.token(seconds=3600))
        settings = {
            "HEADWAY_SIGNING_MODE": "keyless",
            "HEADWAY_SIGSTORE_TRUST": str(folder / "trust.json"),
            "HEADWAY_SIGSTORE_IDENTITY": IDENTITY,
            "HEADWAY_SIGSTORE_ISSUER": instance.url,
            "HEADWAY_SIGSTORE_TOKEN_FILE": str(token),
        }
        stack = Stack.start(folder, env=settings)
        caller = Caller(stack)
        try:
            repository = Repository(stack.repos / "keyless")
            repository.commit({"index.html": "<h1>no key</h1>\n"})
            site = caller.new_site("keyless", repository.path.as_uri())
            yield Ground(stack, instance, Place(stack, caller, site, repository), token)
        finally:
            caller.http.close()
            stack.stop()


def headway(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [*HEADWAY, *words, "--json", "--api-url", stack.api, "--token", stack.key]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


def test_built_rolled_fetched_verified_and_exported(ground: Ground, tmp_path: Path) -> None:
    place = ground.place
    place.push()
    assert "no key" in place.page().text
    [row] = place.get(place.site.production, "artifacts")
    assert row["signature"]["key_hint"] == f"keyless:{IDENTITY}"
    assert "public_key" not in row["links"]
    fetched = headway(ground.stack, "artifacts", "fetch", row["id"], "--output", str(tmp_path / "got"), "--files")
    assert fetched.returncode == 0, fetched.stderr
    pinned = tmp_path / "pinned.json"
    pinned.write_bytes((ground.stack.data / "ledger" / "sigstore.json").read_bytes())
    proof = headway(ground.stack, "verify", str(tmp_path / "got"), "--sigstore", str(pinned))
    assert (proof.returncode, json.loads(proof.stdout)["verified"]) == (0, True), proof.stderr
    evil = json.loads(pinned.read_bytes()) | {"identity": "https://evil.example.test"}
    (tmp_path / "evil.json").write_text(json.dumps(evil))
    assert headway(ground.stack, "verify", str(tmp_path / "got"), "--sigstore", str(tmp_path / "evil.json")).returncode
    archive = str(tmp_path / "site.tar")
    assert headway(ground.stack, "export", "keyless", "--output", archive).returncode == 0
    held = headway(ground.stack, "verify", archive, "--sigstore", str(pinned))
    assert (held.returncode, json.loads(held.stdout)["artifacts"]) == (0, 1), held.stdout + held.stderr


def test_without_a_token_nothing_is_signed_and_what_serves_serves(ground: Ground) -> None:
    place = ground.place
    ground.instance.refuse = {"message": "not today"}
    place.repository.commit({"index.html": "<h1>never</h1>\n"})
    job = place.start_push()
    try:
        with pytest.raises(AssertionError, match="sign"):
            end_quickly(place, job)
        assert "no key" in place.page().text
    finally:
        ground.instance.refuse = None
    assert end_of(place.caller, job)["status"] == "succeeded", "it is tried again, and only so"


def end_quickly(place: Place, job: dict) -> None:
    """Fails with the stage in which the job still is."""
    until = time.monotonic() + 8
    while time.monotonic() < until:
        row = place.caller.get(f"/v1/jobs/{job['id']}")
        assert row["status"] in ("queued", "running"), row
        time.sleep(0.3)
    raise AssertionError(f"still in {place.caller.get('/v1/jobs/' + job['id'])['stage']}: sign")


def test_the_token_is_nowhere(ground: Ground) -> None:
    secret = ground.token.read_text().split(".")[2].encode()
    for path in ground.stack.data.rglob("*"):
        if path.is_file():
            assert secret not in path.read_bytes(), path
