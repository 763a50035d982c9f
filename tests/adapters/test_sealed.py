"""Configuration sealed to one host: nobody else opens it, nowhere else does it open."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.config.sealed import SealedError, Seat, make_host_key, open_sealed, public_of, seal, seat_of
from adapters.hosting.configuration import keep_config

SEAT = Seat(host_id="local", env_id="env_01", seq=7, rollout_id="dep_01", config_version=3)
EARLIER = (
    "SFdTRUFMRUQBAFZ7ImNvbmZpZ192ZXJzaW9uIjozLCJlbnZfaWQiOiJlbnZfMDEiLCJob3N0X2lkIjoibG9jYWwiLCJyb2xsb3V0X2lk",
    "IjoiZGVwXzAxIiwic2VxIjo3fQDv8bzPG+VFL8uVDZKb/Xxjx6DdDAtjf9nLYPlHOt0uej+BHvlQsxZi0Q7lpbLFJz0xA1V0t0ZYOcyk",
    "OkKRHe0qdb3jbaI=",
)
VALUES = {"DATABASE_URL": "postgres://u:p@db/x", "GREETING": "Grüße\nund mehr"}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_host_key(tmp_path / "host" / "identity.key")
    return tmp_path / "host" / "identity.key"


def test_the_host_opens_what_is_sealed_to_it(key: Path, tmp_path: Path) -> None:
    sealed = seal(public_of(key), VALUES, SEAT)
    assert seat_of(sealed) == SEAT
    assert not any(value.encode() in sealed or name.encode() in sealed for name, value in VALUES.items())
    keep_config(tmp_path, sealed)
    path = tmp_path / "config.sealed"
    assert path.stat().st_mode & 0o777 == 0o600
    assert open_sealed(path, key) == VALUES
    assert seal(public_of(key), VALUES, SEAT) != sealed, "each sealing has a key of its own"


def test_the_key_is_the_owners_alone_and_stays(key: Path) -> None:
    before = key.read_bytes()
    make_host_key(key)
    assert key.read_bytes() == before
    assert key.stat().st_mode & 0o777 == 0o600


def test_every_changed_byte_is_noticed(key: Path, tmp_path: Path) -> None:
    sealed = seal(public_of(key), VALUES, SEAT)
    path = tmp_path / "config.sealed"
    for at in range(len(sealed)):
        path.write_bytes(sealed[:at] + bytes((sealed[at] ^ 1,)) + sealed[at + 1 :])
        with pytest.raises(SealedError):
            open_sealed(path, key)
    for end in range(len(sealed)):
        path.write_bytes(sealed[:end])
        with pytest.raises(SealedError):
            open_sealed(path, key)


def test_another_hosts_key_does_not_open_it(key: Path, tmp_path: Path) -> None:
    make_host_key(tmp_path / "other.key")
    path = tmp_path / "config.sealed"
    path.write_bytes(seal(public_of(key), VALUES, SEAT))
    with pytest.raises(SealedError, match="not sealed to this host"):
        open_sealed(path, tmp_path / "other.key")


def test_in_another_releases_folder_it_does_not_open(key: Path, tmp_path: Path) -> None:
    sealed = seal(public_of(key), VALUES, SEAT)
    for env, seq, opens in (("env_01", 7, True), ("env_01", 9, False), ("env_02", 7, False)):
        folder = tmp_path / "host" / "env" / env / "r" / str(seq)
        folder.mkdir(parents=True)
        keep_config(folder, sealed)
        if opens:
            assert open_sealed(folder / "config.sealed", key) == VALUES
        else:
            with pytest.raises(SealedError, match="another release"):
                open_sealed(folder / "config.sealed", key)


def test_what_is_no_key_is_refused(key: Path, tmp_path: Path) -> None:
    with pytest.raises(SealedError, match="no public key"):
        seal("not a key", VALUES)
    (tmp_path / "broken.key").write_text("short")
    with pytest.raises(SealedError, match="no key"):
        public_of(tmp_path / "broken.key")


def test_opening_needs_nothing_of_ours() -> None:
    """A process that only starts an app imports this module: it must stay light."""
    ours = "[m for m in sys.modules if m.partition('.')[0] in ('headway', 'store', 'pydantic', 'temporalio', 'api')]"
    program = f"import sys; import adapters.config.sealed; print({ours})"
    root = Path(__file__).resolve().parents[2]
    found = subprocess.run([sys.executable, "-c", program], cwd=root, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_what_an_earlier_version_sealed_still_opens(tmp_path: Path) -> None:
    """Files on hosts outlive upgrades. The key is the bytes 0 to 31."""
    (tmp_path / "identity.key").write_bytes(base64.b64encode(bytes(range(32))))
    (tmp_path / "config.sealed").write_bytes(base64.b64decode("".join(EARLIER)))
    assert public_of(tmp_path / "identity.key") == "j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8="
    assert seat_of((tmp_path / "config.sealed").read_bytes()) == SEAT
    assert open_sealed(tmp_path / "config.sealed", tmp_path / "identity.key") == {"TOKEN": "hush-hush"}
