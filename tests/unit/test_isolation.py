"""Which of the operator's files the signing worker is lent, where each role has a uid of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway.supervisor import accounts
from headway.supervisor.components import Options, embedded
from headway.supervisor.folder import Folder
from headway.supervisor.isolation import lent_to_signing
from headway.supervisor.ports import Block


def test_where_other_repositories_are_allowed_who_serves_is_left_alone(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data")

    def prints(*repositories: str) -> dict[str, str]:
        walls = accounts.accounts(folder, ("/usr/bin/git",), repositories, low_ports=False)
        options = Options(folder, Block(7070), "temporal", "weed", "caddy", local_repos=repositories, accounts=walls)
        return {one.name: one.fingerprint() for one in embedded(options).components}

    before, after = prints("/srv/one"), prints("/srv/one", "/srv/two")
    assert {name for name in before if before[name] != after[name]} == {"api", "builder", "migrate"}  # as the API


def test_the_files_of_keys_in_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("home/.aws/credentials", "closed/vault", "closed/aws", "token", "data/keys/signing.pem"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    folder, settings = Folder(tmp_path / "data"), {"HEADWAY_SIGSTORE_TOKEN_FILE": str(tmp_path / "token")}
    assert lent_to_signing(folder, settings) == [str(tmp_path / "token")]
    uris = (
        f"vault:deploy/1?address=https://vault.example.org&token_file={tmp_path}/closed/vault",
        f"awskms:alias/one?profile=signing&credentials_file={tmp_path}/closed/aws",
        "awskms:alias/two?profile=signing",
        "vault:deploy/2",
        "vault:deploy/3?token_file=relative",
        f"vault:deploy/4?token_file={tmp_path}/gone",
    )
    for number, uri in enumerate(uris, 2):
        (tmp_path / "data" / "keys" / f"signing-{number}.uri").write_text(uri + "\n")
    lent = [str(tmp_path / name) for name in ("token", "closed/vault", "closed/aws", "home/.aws")]
    assert lent_to_signing(folder, settings) == lent
