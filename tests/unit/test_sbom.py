"""Bills of materials: what lock files name, judged by CycloneDX's own library and that of package URLs."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st
from packageurl import PackageURL

from adapters.artifact.folder import Folder
from adapters.sbom.component import Component, component, integrity
from adapters.sbom.difference import difference
from adapters.sbom.document import MAX_COMPONENTS, Subject, make_sbom, parse_sbom
from adapters.sbom.locks import MAX_TOML, READERS, from_installed, from_locks
from headway.errors import HeadwayError

SUBJECT = Subject("site_X", "ab" * 32, "c" * 40, 1_700_000_000, (("node", "20.1.0"), ("npm", "10.2.0")))
SRI = "sha512-" + base64.b64encode(hashlib.sha512(b"x").digest()).decode()
HEX = hashlib.sha512(b"x").hexdigest()

LOCKS: dict[str, tuple[str, set[str]]] = {
    "package-lock.json": (
        json.dumps(
            {
                "lockfileVersion": 3,
                "packages": {
                    "": {"name": "site"},
                    "node_modules/@babel/core": {"version": "7.1.0", "integrity": SRI, "license": "MIT", "dev": True},
                    "node_modules/a/node_modules/b": {"version": "2.0.0"},
                    "node_modules/alias": {"name": "real", "version": "1.0.0"},
                    "node_modules/linked": {"link": True, "resolved": "packages/linked"},
                    "packages/linked": {"version": "0.0.1"},
                    "node_modules/odd": {"version": 7},
                },
            }
        ),
        {"pkg:npm/%40babel/core@7.1.0", "pkg:npm/b@2.0.0", "pkg:npm/real@1.0.0"},
    ),
    "npm-shrinkwrap.json": (
        json.dumps({"dependencies": {"old": {"version": "1.0.0", "dependencies": {"older": {"version": "0.1.0"}}}}}),
        {"pkg:npm/old@1.0.0", "pkg:npm/older@0.1.0"},
    ),
    "pnpm-lock.yaml": (
        "lockfileVersion: '9.0'\nimporters:\n  .:\n    dependencies:\n      x:\n        version: 1.0.0\npackages:\n\n"
        f"  '@scope/pkg@1.2.3':\n    resolution: {{integrity: {SRI}}}\n    engines: {{node: '>=18'}}\n\n"
        "  plain@4.5.6:\n    resolution: {integrity: bad}\n\nsnapshots:\n\n  ignored@9.9.9: {}\n",
        {"pkg:npm/%40scope/pkg@1.2.3", "pkg:npm/plain@4.5.6"},
    ),
    "yarn.lock": (
        "# yarn lockfile v1\n\n\n"
        f'"@scope/one@^1.0.0", "@scope/one@^1.1.0":\n  version "1.1.5"\n  resolved "x"\n  integrity {SRI}\n\n'
        'two@^2.0.0:\n  version "2.0.1"\n  dependencies:\n    three "^3"\n\n'
        '"berry@npm:^3.0.0":\n  version: 3.0.2\n  resolution: "berry@npm:3.0.2"\n\n'
        '"own@workspace:.":\n  version: 0.0.0-use.local\n',
        {"pkg:npm/%40scope/one@1.1.5", "pkg:npm/two@2.0.1", "pkg:npm/berry@3.0.2"},
    ),
    "uv.lock": (
        'version = 1\n[[package]]\nname = "Flask"\nversion = "3.0.0"\nsource = { registry = "x" }\n'
        'wheels = [{ url = "x", hash = "sha256:' + "ab" * 32 + '" }]\n'
        '[[package]]\nname = "own"\nversion = "0.1"\nsource = { virtual = "." }\n',
        {"pkg:pypi/flask@3.0.0"},
    ),
    "poetry.lock": ('[[package]]\nname = "Jinja2"\nversion = "3.1.2"\n', {"pkg:pypi/jinja2@3.1.2"}),
    "requirements.txt": (
        "# x\nzope.interface==6.0 \\\n    --hash=sha256:"
        + "cd" * 32
        + "\nrequests[socks] == 2.31.0 ; python_version > '3'\n"
        "loose>=1\n-r other.txt\n-e .\n",
        {"pkg:pypi/zope-interface@6.0", "pkg:pypi/requests@2.31.0"},
    ),
    "Cargo.lock": (
        '[[package]]\nname = "own"\nversion = "0.1.0"\n'
        '[[package]]\nname = "serde"\nversion = "1.0.1"\nsource = "registry+x"\nchecksum = "' + "ef" * 32 + '"\n',
        {"pkg:cargo/serde@1.0.1"},
    ),
    "go.sum": (
        "github.com/gin-gonic/gin v1.9.1 h1:abc=\ngithub.com/gin-gonic/gin v1.9.1/go.mod h1:def=\n",
        {"pkg:golang/github.com/gin-gonic/gin@v1.9.1"},
    ),
}


def locks_of(folder: Path) -> list[Component]:
    with Folder(folder) as opened:
        return from_locks(opened)


def test_every_reader_has_a_sample() -> None:
    assert set(LOCKS) == set(READERS)


@pytest.mark.parametrize("name", LOCKS)
def test_what_a_lock_file_names(tmp_path: Path, name: str) -> None:
    text, wanted = LOCKS[name]
    (tmp_path / name).write_text(text)
    found = locks_of(tmp_path)
    assert {one.purl for one in found} == wanted
    for one in found:
        url = PackageURL.from_string(one.purl)
        assert url.to_string() == one.purl
        assert one.source == name


@pytest.mark.parametrize("name", ["uv.lock", "poetry.lock", "Cargo.lock"])
def test_a_lock_larger_than_any_projects_is_left_out(tmp_path: Path, name: str) -> None:
    text, wanted = LOCKS[name]
    (tmp_path / name).write_text(text + f"# {'x' * MAX_TOML}\n")
    assert locks_of(tmp_path) == []
    (tmp_path / name).write_text(text + f"# {'x' * 1000}\n")
    assert {one.purl for one in locks_of(tmp_path)} == wanted


def test_hashes_licences_and_what_is_only_for_development(tmp_path: Path) -> None:
    for name, (text, _) in LOCKS.items():
        (tmp_path / name).write_text(text)
    by_purl = {one.purl: one for one in locks_of(tmp_path)}
    babel = by_purl["pkg:npm/%40babel/core@7.1.0"]
    assert (babel.hashes, babel.license, babel.optional) == ((("SHA-512", HEX),), "MIT", True)
    assert by_purl["pkg:npm/%40scope/pkg@1.2.3"].hashes == (("SHA-512", HEX),)
    assert by_purl["pkg:npm/plain@4.5.6"].hashes == ()
    assert by_purl["pkg:npm/%40scope/one@1.1.5"].hashes == (("SHA-512", HEX),)
    assert by_purl["pkg:pypi/flask@3.0.0"].hashes == (("SHA-256", "ab" * 32),)
    assert by_purl["pkg:pypi/zope-interface@6.0"].hashes == (("SHA-256", "cd" * 32),)
    assert by_purl["pkg:cargo/serde@1.0.1"].hashes == (("SHA-256", "ef" * 32),)


def test_the_document_is_cyclonedx_and_the_same_every_time(tmp_path: Path) -> None:
    for name, (text, _) in LOCKS.items():
        (tmp_path / name).write_text(text)
    found = locks_of(tmp_path)
    raw = make_sbom(SUBJECT, found)
    assert make_sbom(SUBJECT, [*reversed(found), *found]) == raw
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(raw.decode()) is None
    read: Any = Bom.from_json(json.loads(raw))  # type: ignore[attr-defined]
    assert {str(one.purl) for one in read.components} == {one.purl for one in found}
    assert read.metadata.component.version == SUBJECT.commit_sha
    empty = make_sbom(SUBJECT, [])
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(empty.decode()) is None
    assert parse_sbom(empty)["components"] == []


def test_one_that_is_needed_anywhere_is_not_optional_and_the_hash_wins() -> None:
    some = [
        Component("npm", "a", "1", optional=True, source="package-lock.json"),
        Component("npm", "a", "1", (("SHA-512", HEX),), optional=True, source="yarn.lock"),
        Component("npm", "a", "1", source="node_modules/.package-lock.json"),
    ]
    (only,) = parse_sbom(make_sbom(SUBJECT, some))["components"]
    assert "scope" not in only
    assert only["hashes"] == [{"alg": "SHA-512", "content": HEX}]


def test_too_many_components_are_said_to_be_too_many() -> None:
    some = [Component("npm", f"c{number}", "1") for number in range(MAX_COMPONENTS + 5)]
    document = parse_sbom(make_sbom(SUBJECT, some))
    assert len(document["components"]) == MAX_COMPONENTS
    assert document["compositions"][0]["aggregate"] == "incomplete"


def test_what_an_install_left(tmp_path: Path) -> None:
    info = tmp_path / ".headway/site-packages/markdown_it_py-3.0.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: markdown-it-py\nVersion: 3.0.0\nLicense-Expression: MIT\n\nName: no\n"
    )
    (tmp_path / ".headway/site-packages/x.dist-info").mkdir()
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules/.package-lock.json").write_text(LOCKS["package-lock.json"][0])
    with Folder(tmp_path) as folder:
        found = {one.purl: one for one in from_installed(folder)}
    assert found["pkg:pypi/markdown-it-py@3.0.0"].license == "MIT"
    assert "pkg:npm/b@2.0.0" in found


@pytest.mark.parametrize("name", LOCKS)
@settings(max_examples=25, deadline=None)
@given(noise=st.binary(max_size=200), cut=st.integers(0, 400))
def test_a_broken_lock_file_breaks_nothing(name: str, noise: bytes, cut: int) -> None:
    for text in (noise.decode("utf-8", "replace"), LOCKS[name][0][:cut] + noise.decode("latin-1")):
        found = [one for one in READERS[name](text, name) if one is not None]
        make_sbom(SUBJECT, found)


def test_links_and_odd_values_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a==1\n")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/requirements.txt").symlink_to(secret)
    assert locks_of(tmp_path / "tree") == []
    assert component("npm", "a\nb", "1") is None
    assert component("npm", "a", None) is None
    assert integrity("md5-abc sha512-AAAA sha512-!!") == ()


def test_what_two_bills_have_not_in_common() -> None:
    old = make_sbom(SUBJECT, [Component("npm", "a", "1"), Component("npm", "b", "1"), Component("npm", "gone", "1")])
    new = make_sbom(SUBJECT, [Component("npm", "a", "2"), Component("npm", "b", "1"), Component("npm", "@x/new", "1")])
    changes = [(one.package, one.before, one.after) for one in difference(old, new)]
    assert changes == [("pkg:npm/%40x/new", None, "1"), ("pkg:npm/a", "1", "2"), ("pkg:npm/gone", "1", None)]
    with pytest.raises(HeadwayError):
        difference(old, b"{}")
