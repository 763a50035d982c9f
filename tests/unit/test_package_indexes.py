from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapters.egress.indexes import DEFAULT_OF_PIP, discover

NPM = {
    "registry": "https://npm.corp.test/all/",
    "@acme:registry": "https://acme.test:8443/npm/",
    "//npm.corp.test/:_authToken": "(protected)",
    "cafile": None,
    "user-agent": "npm",
}


def answers(table: dict[str, str]):  # type: ignore[no-untyped-def]
    return lambda argv: table.get(" ".join(argv), "")


def no_links(kind: str, index: str) -> list[str]:
    return []


def test_configured_indexes_become_hosts_and_variables(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x")
    (tmp_path / "index" / "simple").mkdir(parents=True)
    config = "\n".join(
        [
            "global.index-url='https://reader:word@py.corp.test/simple'",
            f"global.extra-index-url='file://{tmp_path}/index/simple https://more.test/simple'",
            f"global.cert='{tmp_path}/ca.pem'",
            ":env:.default-timeout='60'",
        ]
    )
    found = discover(
        answers(
            {
                "npm config list --json": json.dumps(NPM),
                "pip --version": "pip 25",
                "pip config list": config,
                "go env GOPROXY GOSUMDB": "https://go.corp.test,direct\nsum.corp.test+abc\n",
            }
        ),
        no_links,
    )
    assert found.hosts == (
        "npm.corp.test:443",
        "acme.test:8443",
        "py.corp.test:443",
        "more.test:443",
        "go.corp.test:443",
        "sum.corp.test:443",
    )
    assert found.env["npm_config_registry"] == "https://npm.corp.test/all/"
    assert found.env["npm_config_@acme:registry"] == "https://acme.test:8443/npm/"
    assert found.env["PIP_INDEX_URL"] == "https://reader:word@py.corp.test/simple"
    assert found.env["PIP_DEFAULT_TIMEOUT"] == "60"
    assert found.folders == (tmp_path / "index",)
    assert found.ca_files == (tmp_path / "ca.pem",)


def test_tokens_and_other_settings_of_the_host_stay_out() -> None:
    found = discover(answers({"npm config list --json": json.dumps(NPM)}), no_links)
    assert not any("auth" in key.lower() or "protected" in value for key, value in found.env.items())
    assert "npm_config_user_agent" not in found.env


def test_the_default_of_pip_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    monkeypatch.delenv("UV_INDEX_URL", raising=False)
    table = {"python3 -m pip --version": "pip 24", f"python3 -c {DEFAULT_OF_PIP}": "https://default.test/simple\n"}
    found = discover(answers(table), no_links)
    assert found.hosts == ("default.test:443",)
    assert found.env["PIP_INDEX_URL"] == "https://default.test/simple"


def test_hosts_that_keep_the_files_are_found_by_asking_the_index() -> None:
    def links(kind: str, index: str) -> list[str]:
        return {"npm": ["https://tarballs.test/npm.tgz"]}.get(kind, [])

    found = discover(answers({"npm config list --json": json.dumps({"registry": "https://npm.test/"})}), links)
    assert found.hosts == ("npm.test:443", "tarballs.test:443")


def test_a_machine_without_clients_has_no_indexes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    monkeypatch.delenv("UV_INDEX_URL", raising=False)
    found = discover(answers({"npm config list --json": "not json"}), no_links)
    assert (found.hosts, found.folders, found.ca_files) == ((), (), ())
