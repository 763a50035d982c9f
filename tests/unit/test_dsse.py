from __future__ import annotations

import subprocess
import sys

import pytest
from securesystemslib.dsse import Envelope

from adapters.ledger.dsse import pae


@pytest.mark.parametrize("payload", [b"", b"{}", b"\0\xff 1\n", b"x" * 1000])
@pytest.mark.parametrize("kind", ["application/vnd.in-toto+json", "", "é"])
def test_what_is_signed_is_what_the_library_signs(kind: str, payload: bytes) -> None:
    assert pae(kind, payload) == Envelope(payload, kind, {}).pae()


def test_who_only_verifies_loads_no_client_of_a_cloud() -> None:
    modules = "sys, adapters.signer.bundle, httpx, store.migrations"
    code = f"from headway import _launch; _launch.enter(); import {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "adapters.signer.bundle" in loaded
    assert {"azure", "google.cloud.kms", "boto3", "pygments", "rich", "securesystemslib"}.isdisjoint(loaded)
