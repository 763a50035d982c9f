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


@pytest.mark.parametrize("name", ["a", '"a b"'])
@pytest.mark.parametrize("before", ['"""b"""', '"""b""""', '"""b"""""', "'''b''''", '"\\\\"', "'\\'", '""'])
def test_no_string_hides_a_long_key(before: str, name: str) -> None:
    assert parse_toml(f"x = [{before}, {{ y = 1 }}]")["x"][1] == {"y": 1}
    with pytest.raises(ValueError, match="more than 16 names"):
        parse_toml(f"x = [{before}, {{ {'.'.join([name] * 17)} = 1 }}]")


def test_dots_in_strings_and_remarks_are_no_key() -> None:
    oid = ".".join(map(str, range(1, 30)))
    text = f"# {oid}\na = \"{oid}\"\nb = '{oid}' # {oid}\nc = \"\"\"\n{oid}\"\"\"\nd = '''{oid}'''\n"
    assert parse_toml(text) == dict.fromkeys("abcd", oid)
    assert parse_toml(".".join(["a"] * 16) + " = 1")


ESCAPED = '\\"' * (1 << 17)


@pytest.mark.parametrize(
    "text",
    ['a = "' + ESCAPED, 'a."' + ESCAPED, '\\"""\n' * (1 << 15) + "\\", 'a = """' + '\\"""\n' * (1 << 15) + "\\"],
    ids=["value", "key", "lines", "text"],
)
def test_strings_without_an_end_are_refused_at_once(text: str) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match=r"Unterminated|Invalid|Unescaped"):
        parse_toml(text)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("digits", ["0x" + "f" * 4000, "0b" + "1" * 20_000, "0o" + "7_" * 3000 + "7"])
def test_numbers_that_no_message_could_name_are_refused(digits: str) -> None:
    with pytest.raises(ValueError, match=r"more than 1000 digits \(at line 2\)"):
        parse_toml(f"# ...\na = {digits}")
    assert parse_toml("a = 0xdead_beef") == {"a": 0xDEADBEEF}
