"""Our bundles, judged by somebody else's verifier: the Sigstore packages for Node."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from adapters.signer.bundle import attest
from adapters.signer.keys import create_key, load_key
from adapters.signer.statement import BuildFacts, statement

PACKAGES = ("@sigstore/verify@3", "@sigstore/bundle@4", "@sigstore/protobuf-specs@0.5")
PROGRAM = Path(__file__).with_name("verify_bundle.cjs")
MANIFEST = b'{"files":[],"version":1}'


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages installed; skips with the reason where they cannot be had."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("no node and npm on PATH: the foreign verifier is not run")
    folder = tmp_path_factory.mktemp("sigstore")
    (folder / "package.json").write_text("{}")
    flags = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error"]
    for attempt in range(3):
        done = subprocess.run(
            [npm, "install", *flags, *PACKAGES], cwd=folder, capture_output=True, text=True, timeout=90, check=False
        )
        if done.returncode == 0:
            return folder
        time.sleep(attempt)
    pytest.skip(f"the npm packages cannot be had: {done.stderr.strip().splitlines()[-1:]}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    key = create_key(folder)
    facts = BuildFacts(
        site_id="site_01KVT00000000000000000000A",
        env_id="env_01KVT00000000000000000000A",
        build_id="build_01KVT0000000000000000000A",
        digest=hashlib.sha256(MANIFEST).hexdigest(),
        repository="https://git.example.test/shop.git",
        ref="main",
        commit_sha="1" * 40,
        source_sha256="2" * 64,
    )
    (folder / "manifest.json").write_bytes(MANIFEST)
    (folder / "bundle.json").write_bytes(attest(statement(facts), key))
    return folder


def judge(packages: Path, bundle: Path, key: Path, manifest: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["node", PROGRAM, bundle, key, manifest],
        cwd=packages,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )


def test_it_verifies(packages: Path, folder: Path) -> None:
    done = judge(packages, folder / "bundle.json", folder / "signing.pub", folder / "manifest.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "verified https://slsa.dev/provenance/v1\n"


def test_a_flipped_byte_does_not(packages: Path, folder: Path, tmp_path: Path) -> None:
    document = json.loads((folder / "bundle.json").read_bytes())
    payload = bytearray(base64.b64decode(document["dsseEnvelope"]["payload"]))
    payload[-10] ^= 1
    document["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    (tmp_path / "bundle.json").write_text(json.dumps(document))
    done = judge(packages, tmp_path / "bundle.json", folder / "signing.pub", folder / "manifest.json")
    assert done.returncode != 0
    assert "signature" in done.stderr


def test_another_key_does_not(packages: Path, folder: Path, tmp_path: Path) -> None:
    other = create_key(tmp_path)
    assert other.hint != load_key(folder / "signing.pem").hint
    done = judge(packages, folder / "bundle.json", tmp_path / "signing.pub", folder / "manifest.json")
    assert done.returncode != 0
    assert "unknown key hint" in done.stderr
