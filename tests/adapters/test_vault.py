"""Values at rest: bound to their row, unreadable without the key, and a key that can be changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from adapters.config.vault import Hidden, Vault, add_key, forget_keys, make_key_file, read_keys
from headway.errors import HeadwayError

ROW, OTHER = "cfg_01 env_01 TOKEN", "cfg_02 env_01 TOKEN"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    make_key_file(tmp_path / "secrets" / "config.key")
    return tmp_path / "secrets" / "config.key"


def opened(vault: Vault, hidden: Hidden, row: str = ROW) -> str:
    return vault.open(hidden.ciphertext, hidden.wrapped_key, hidden.key_id, row)


def refused(vault: Vault, hidden: Hidden, row: str = ROW) -> None:
    with pytest.raises(HeadwayError) as error:
        opened(vault, hidden, row)
    assert error.value.code == "config.unreadable"


def test_a_value_comes_back_and_never_looks_the_same_twice(path: Path) -> None:
    vault = Vault(path)
    one, two = vault.hide("s3cret", ROW), vault.hide("s3cret", ROW)
    assert opened(vault, one) == opened(Vault(path), two) == "s3cret"
    assert one.ciphertext != two.ciphertext
    assert b"s3cret" not in one.ciphertext + one.wrapped_key
    assert path.stat().st_mode & 0o777 == 0o600


def test_tampering_and_swapping_are_noticed(path: Path) -> None:
    vault = Vault(path)
    hidden, other = vault.hide("mine", ROW), vault.hide("theirs", OTHER)
    refused(vault, hidden, OTHER)
    refused(vault, replace(hidden, ciphertext=other.ciphertext))
    refused(vault, replace(hidden, wrapped_key=other.wrapped_key))
    for part in ("ciphertext", "wrapped_key"):
        raw = getattr(hidden, part)
        for at in range(len(raw)):
            refused(vault, replace(hidden, **{part: raw[:at] + bytes((raw[at] ^ 1,)) + raw[at + 1 :]}))
        refused(vault, replace(hidden, **{part: b""}))


def test_without_its_key_nothing_opens(path: Path, tmp_path: Path) -> None:
    hidden = Vault(path).hide("mine", ROW)
    make_key_file(tmp_path / "other.key")
    refused(Vault(tmp_path / "other.key"), hidden)
    stranger = Vault(tmp_path / "other.key")
    refused(stranger, replace(hidden, key_id=stranger.key_ids()[0]))
    refused(Vault(tmp_path / "none.key"), hidden)


def test_a_new_key_is_used_at_once_and_the_old_one_still_reads(path: Path) -> None:
    vault = Vault(path)
    hidden = vault.hide("mine", ROW)
    fresh = add_key(path)
    assert vault.key_ids() == [fresh, hidden.key_id]
    assert vault.hide("later", ROW).key_id == fresh
    wrapped, key_id = vault.rewrap(hidden.wrapped_key, hidden.key_id, ROW)
    assert key_id == fresh
    forget_keys(path, {hidden.key_id, fresh})
    assert vault.key_ids() == [fresh], "the key in use stays"
    assert vault.open(hidden.ciphertext, wrapped, key_id, ROW) == "mine"
    refused(vault, hidden)


def test_a_key_file_that_is_there_stays(path: Path) -> None:
    before = path.read_bytes()
    make_key_file(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["", "abcd\n", "abcd c2hvcnQ=\n", "one AAAA\n\ntwo"])
def test_a_file_that_holds_no_keys_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.key").write_text(text)
    with pytest.raises(HeadwayError) as error:
        read_keys(tmp_path / "config.key")
    assert error.value.code == "config.unreadable"
