"""`headway secrets`, `variables` and `hosts`: a secret is never an argument, and never printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.config.vault import Vault, make_key_file, read_keys
from headway.resources import Json
from store import migrations
from store.config_values import Owner, open_value, set_value
from store.models_configuration import ConfigValue
from store.session import Store
from tests.unit.api_double import ApiDouble
from tests.unit.test_cli import SITE, E, double, home, run
from tests.workflows.rows import World

__all__ = ["double", "home"]
WHERE = "--site acme-store --env feature-checkout"


def row(**fields: object) -> Json:
    return {"key": "TOKEN", "version": 3, "version_id": "cfg_0003", "source": "environment", "live": False, **fields}


def test_a_secret_is_read_from_stdin_and_not_shown(double: ApiDouble) -> None:
    double.data("PUT", f"{E}/secrets/TOKEN", row())
    done = run(f"secrets set TOKEN {WHERE}", input="-----BEGIN KEY-----\nhush-hush\n-----END KEY-----\n\n")
    assert done.exit_code == 0, done.output
    asked = double.calls("PUT", f"{E}/secrets/TOKEN")[0]
    assert asked.body == {"value": "-----BEGIN KEY-----\nhush-hush\n-----END KEY-----\n"}
    assert "hush" not in done.output
    assert "version 3" in done.output


def test_a_secret_is_no_argument(double: ApiDouble) -> None:
    done = run(f"secrets set TOKEN hush-hush {WHERE}")
    assert done.exit_code == 2
    assert double.calls("PUT", f"{E}/secrets/TOKEN") == []


def test_without_an_environment_it_is_the_sites_default(double: ApiDouble) -> None:
    double.data("PUT", f"/v1/sites/{SITE}/variables/COLOR", row(key="COLOR", value="red"))
    assert run("variables set COLOR red --site acme-store").exit_code == 0
    assert double.calls("PUT", f"/v1/sites/{SITE}/variables/COLOR")[0].body == {"value": "red"}


def test_a_variables_value_is_printed_as_it_is_but_on_a_terminal(
    double: ApiDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = "-----BEGIN-----\n\tkey: \x1b[1mx\n-----END-----"
    double.data("GET", f"{E}/variables/CERT", row(key="CERT", value=value))
    assert run(f"variables get CERT {WHERE}").stdout == f"{value}\n"
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)
    assert run(f"variables get CERT {WHERE}").stdout == "-----BEGIN-----\n    key: x\n-----END-----\n"


def test_a_name_that_would_be_a_path_stays_one_part_of_it(double: ApiDouble) -> None:
    refused = run("secrets unset ../../x --site acme-store --env feature-checkout")
    assert refused.exit_code == 2, refused.output
    assert double.calls("DELETE", f"{E}/secrets/../../x") == []
    assert all("/../" not in asked.path for asked in double.asked)


def test_a_version_is_revoked_by_its_number(double: ApiDouble) -> None:
    double.data("GET", f"{E}/secrets/TOKEN/versions", [row(), row(version=2, version_id="cfg_0002")])
    double.data("POST", f"{E}/secrets/TOKEN/revoke", row(version=2, version_id="cfg_0002", live=True))
    done = run(f"secrets revoke TOKEN --version 2 --yes {WHERE}")
    assert done.exit_code == 0, done.output
    assert double.calls("POST", f"{E}/secrets/TOKEN/revoke")[0].body == {"version_id": "cfg_0002"}
    assert "What runs still has it" in done.output
    assert run(f"secrets revoke TOKEN --version 9 --yes {WHERE}").exit_code == 4


def test_a_rollback_may_keep_the_configuration(double: ApiDouble) -> None:
    job = {"id": "job_0001", "type": "deployment.rollback", "status": "queued"}
    double.data("POST", f"{E}/deployments/current/rollback", job, status=202)
    assert run(f"rollback {WHERE} --keep-config").exit_code == 0
    assert double.calls("POST", f"{E}/deployments/current/rollback")[0].body == {"keep_config": True}


def test_a_hosts_offered_key_is_accepted(double: ApiDouble) -> None:
    host = {"id": "local", "public_key": "old=", "offered_key": "new=", "labels": []}
    double.data("GET", "/v1/hosts/local", host)
    double.data("POST", "/v1/hosts/local/accept", {**host, "public_key": "new=", "offered_key": None})
    assert run("hosts accept local", input="n\n").exit_code != 0
    assert double.calls("POST", "/v1/hosts/local/accept") == []
    assert run("hosts accept local --yes").exit_code == 0
    assert double.calls("POST", "/v1/hosts/local/accept")[0].body == {"public_key": "new="}


def test_rekey_changes_the_key_and_keeps_the_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    data = tmp_path / "data"
    (data / "db").mkdir(parents=True)
    nothing = run(f"secrets rekey --data-dir {data}")
    assert nothing.exit_code == 1
    for name in ("config", "webhooks"):
        assert run(f"secrets rekey --data-dir {data}").exit_code == 1
        make_key_file(data / "secrets" / f"{name}.key")
    assert run(f"secrets rekey --data-dir {data}").exit_code == 1
    assert not (data / "db" / "headway.db").exists()
    url = f"sqlite:///{data / 'db' / 'headway.db'}"
    migrations.upgrade(url)
    store = Store.open(url)
    world, vault = World.make(store), Vault(data / "secrets" / "config.key")
    owner = Owner(world.site_id, world.env_id)
    made = store.in_write(lambda session: set_value(session, vault, owner, "TOKEN", "hush-hush", {}, secret=True))
    done = run(f"secrets rekey --data-dir {data}")
    assert (done.exit_code, "1 values are under the new key" in done.output) == (0, True)
    assert "0 secrets of webhooks are under the new key" in done.output

    def kept() -> list[int]:
        return [len(read_keys(data / "secrets" / f"{name}.key")) for name in ("config", "webhooks")]

    assert kept() == [2, 2]
    assert run(f"secrets rekey --only webhooks --forget-old --data-dir {data}").exit_code == 0
    assert kept() == [2, 1]
    assert run(f"secrets rekey --forget-old --data-dir {data}").exit_code == 0
    assert kept() == [1, 1]
    with store.read() as session:
        assert open_value(vault, session.get_one(ConfigValue, made.id)) == "hush-hush"
    store.close()


@pytest.mark.parametrize(("verb", "noun"), [("hosts join", "hosts"), ("builders add", "builders")])
def test_a_replayed_credential_is_not_taken_for_one(double: ApiDouble, tmp_path: Path, verb: str, noun: str) -> None:
    row = {"id": "two", "credential": "", "signing_keys": {}, "created_at": "2026-07-01T12:00:00.000Z"}
    double.data("POST", f"/v1/{noun}", {**row, "public_key": "", "offered_key": None})
    done = run(f"{verb} two --output {tmp_path}/papers --idempotency-key again")
    assert done.exit_code == 5
    assert "--renew" in done.output
    assert not (tmp_path / "papers").exists()


@pytest.mark.parametrize(("verb", "noun"), [("hosts join", "hosts"), ("builders add", "builders")])
def test_no_credential_is_made_that_has_nowhere_to_be(double: ApiDouble, tmp_path: Path, verb: str, noun: str) -> None:
    (tmp_path / "file").write_text("")
    assert run(f"{verb} two --output {tmp_path}/file/papers").exit_code == 1
    assert double.calls("POST", f"/v1/{noun}") == []


@pytest.mark.parametrize(("verb", "noun"), [("hosts join", "hosts"), ("builders add", "builders")])
def test_papers_are_its_owners_and_say_what_is_missing(double: ApiDouble, tmp_path: Path, verb: str, noun: str) -> None:
    row = {"id": "two", "credential": "hwx_1", "signing_keys": {"../signing.pub": "PEM"}, "public_key": ""}
    double.data("POST", f"/v1/{noun}", {**row, "created_at": "2026-07-01T12:00:00.000Z", "broker_root": None})
    done = run(f"{verb} two --output {tmp_path}/papers")
    assert (done.exit_code, "HEADWAY_BROKER_LISTEN" in done.output) == (0, True)
    written = {path.name: path for path in (tmp_path / "papers").iterdir()}
    token = written.pop(f"{noun.removesuffix('s')}.token")
    assert (token.read_text(), token.stat().st_mode & 0o777) == ("hwx_1\n", 0o600)
    assert set(written) == ({"signing.pub"} if noun == "hosts" else set())
    again = run(f"{verb} two --output {tmp_path}/papers")
    assert (again.exit_code, len(double.calls("POST", f"/v1/{noun}"))) == (2, 1)
