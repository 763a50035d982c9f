"""Bundles with their ledger entry, judged by stock cosign and by the Sigstore packages for Node."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from activities.ledger import About, Ledger
from adapters.ledger.root import ROOT_NAME
from adapters.signer.bundle import attest
from adapters.signer.keys import SigningKey, create_key
from adapters.signer.statement import BuildFacts, statement
from store.migrations import upgrade
from store.session import Store
from tests.adapters.cosign import SUITES, cosign_of
from tests.adapters.test_bundle_foreign import packages

__all__ = ["packages"]
PROGRAM = Path(__file__).with_name("verify_logged.cjs")
MANIFEST = b'{"files":[],"version":1}'
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logged")
    enter(folder, create_key(folder / "keys"))
    return folder


def enter(folder: Path, key: SigningKey) -> None:
    """What `headway artifacts fetch` leaves, for an artifact that is the sixth entry of its ledger."""
    upgrade(f"sqlite:///{folder}/headway.db")
    store = Store.open(f"sqlite:///{folder}/headway.db")
    ledger = Ledger.open(store, folder / "ledger", "ledger.example.test")
    for number in range(6):
        facts = BuildFacts(
            site_id="site_01KVT00000000000000000000A",
            env_id="env_01KVT00000000000000000000A",
            build_id=f"build_{number}",
            digest=hashlib.sha256(MANIFEST).hexdigest(),
            repository="https://git.example.test/shop.git",
            ref="main",
            commit_sha="1" * 40,
            source_sha256="2" * 64,
        )
        bundle = attest(statement(facts), key, ledger=ledger.about(About(f"build:build_{number}", "build")))
    ledger.publish(folder)
    store.close()
    (folder / "manifest.json").write_bytes(MANIFEST)
    (folder / "bundle.json").write_bytes(bundle)
    (folder / "key.pub").write_bytes(key.pem)


@pytest.fixture(scope="module", params=SUITES)
def cosign(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cosign_of(request.param, tmp_path_factory.mktemp(f"cosign-{request.param}"))


def changed(folder: Path, into: Path, change: Change) -> Path:
    document = json.loads((folder / "bundle.json").read_bytes())
    change(document)
    (into / "bundle.json").write_text(json.dumps(document))
    return into / "bundle.json"


def entry(document: dict[str, Any]) -> dict[str, Any]:
    return dict(document["verificationMaterial"]["tlogEntries"][0])


def put(document: dict[str, Any], **values: Any) -> None:
    document["verificationMaterial"]["tlogEntries"][0].update(values)


def other_proof(document: dict[str, Any]) -> None:
    proof = entry(document)["inclusionProof"]
    put(document, inclusionProof={**proof, "hashes": [base64.b64encode(b"\0" * 32).decode()] * len(proof["hashes"])})


def flip(document: dict[str, Any], *path: str | int) -> None:
    """One bit of a base64 member."""
    inner: Any = document
    for name in path[:-1]:
        inner = inner[name]
    raw = bytearray(base64.b64decode(inner[path[-1]]))
    raw[len(raw) // 2] ^= 1
    inner[path[-1]] = base64.b64encode(raw).decode()


def another_ledger(document: dict[str, Any]) -> None:
    proof = entry(document)["inclusionProof"]
    note = proof["checkpoint"]["envelope"].replace("ledger.example.test", "evil.example.test")
    put(document, inclusionProof={**proof, "checkpoint": {"envelope": note}})


ENVELOPE, MATERIAL = "dsseEnvelope", "verificationMaterial"
TAMPERINGS: dict[str, Change] = {
    "of another media type": lambda d: d.update(mediaType="application/vnd.example.bundle"),
    "without its key": lambda d: d[MATERIAL].pop("publicKey"),
    "without its envelope": lambda d: d.pop(ENVELOPE),
    "of another payload type": lambda d: d[ENVELOPE].update(payloadType="text/plain"),
    "without a signature": lambda d: d[ENVELOPE].update(signatures=[]),
    "with a changed statement": lambda d: flip(d, ENVELOPE, "payload"),
    "with a changed signature": lambda d: flip(d, ENVELOPE, "signatures", 0, "sig"),
    "with the body of another entry": lambda d: flip(d, MATERIAL, "tlogEntries", 0, "canonicalizedBody"),
    "of another ledger": another_ledger,
    "without its entry": lambda d: d["verificationMaterial"].update(tlogEntries=[]),
    "back-dated": lambda d: put(d, integratedTime=str(int(entry(d)["integratedTime"]) - 86400)),
    "with another proof": other_proof,
    "with another promise": lambda d: put(
        d, inclusionPromise={"signedEntryTimestamp": d["dsseEnvelope"]["signatures"][0]["sig"]}
    ),
}


def with_cosign(cosign: Path, folder: Path, bundle: Path) -> subprocess.CompletedProcess[str]:
    argv = [cosign, "verify-blob-attestation", "--key", folder / "key.pub", "--bundle", bundle]
    argv += ["--type", "slsaprovenance1", "--trusted-root", folder / ROOT_NAME]
    # Version 2 has to be told what version 3 does by itself.
    argv += ["--new-bundle-format"]
    home = {"PATH": os.environ["PATH"], "HOME": str(folder), "HTTPS_PROXY": "http://127.0.0.1:9", "no_proxy": ""}
    return subprocess.run(
        [*map(str, argv), str(folder / "manifest.json")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=home,
    )


def with_node(packages: Path, folder: Path, bundle: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["node", PROGRAM, bundle, folder / "key.pub", folder / "manifest.json", folder / ROOT_NAME],
        cwd=packages,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )


@pytest.mark.slow
def test_stock_cosign_takes_it(cosign: Path, folder: Path) -> None:
    done = with_cosign(cosign, folder, folder / "bundle.json")
    assert done.returncode == 0, done.stderr
    assert "Verified OK" in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", TAMPERINGS)
def test_stock_cosign_refuses_it(cosign: Path, folder: Path, tmp_path: Path, name: str) -> None:
    done = with_cosign(cosign, folder, changed(folder, tmp_path, TAMPERINGS[name]))
    assert done.returncode != 0, done.stdout


def test_sigstore_for_node_takes_it(packages: Path, folder: Path) -> None:
    done = with_node(packages, folder, folder / "bundle.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "verified https://slsa.dev/provenance/v1\n"


@pytest.mark.parametrize("name", TAMPERINGS)
def test_sigstore_for_node_refuses_it(packages: Path, folder: Path, tmp_path: Path, name: str) -> None:
    done = with_node(packages, folder, changed(folder, tmp_path, TAMPERINGS[name]))
    assert done.returncode != 0, done.stdout
