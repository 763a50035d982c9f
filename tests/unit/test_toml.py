"""TOML of strangers costs no more than its size."""

from __future__ import annotations

import time

import pytest

from headway.toml import parse_toml


@pytest.mark.parametrize("name", ["a", '"a b"', "'a,[b'", '"\\""'])
@pytest.mark.parametrize("around", ["{} = 1", "[{}]", "x = {{ {} = 1 }}"])
def test_keys_of_thousands_of_names_are_refused_at_once(name: str, around: str) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match=r"more than 16 names \(at line 2\)"):
        parse_toml("\n" + around.format(" . ".join([name] * 20_000)))
    assert time.process_time() - began < 5


def test_what_people_write_is_read() -> None:
    text = 'a."b.c".d = "1.2.3 ... of. this"\n# ' + ". " * 200 + '\nlong = """\n' + "Some words. " * 500 + '\n"""\n'
    assert parse_toml("\ufeff" + text) == parse_toml(text)
    assert parse_toml(text)["a"]["b.c"]["d"] == "1.2.3 ... of. this"
    began = time.process_time()
    parse_toml('a = "' + "x" * (1 << 20) + '"\n' + "# " + '"' * (1 << 18))
    assert time.process_time() - began < 5
