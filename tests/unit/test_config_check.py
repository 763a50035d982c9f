"""`headway doctor --config`, secrets as files, and the files that `make-secrets` leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from headway.cli.doctor import doctor
from headway.cli.make_secrets import make_secrets
from headway.errors import HeadwayError
from headway.settings import Settings
from headway.supervisor.examine_config import weak
from temporal.client import connection

Environment = dict[str, str]


@pytest.fixture
def made(tmp_path: Path) -> Environment:
    """The environment of an API in a container, and its secrets."""
    folder = tmp_path / "secrets"
    assert CliRunner().invoke(make_secrets, [str(folder)]).exit_code == 0
    return {
        "HEADWAY_DATA_DIR": str(tmp_path),
        "HEADWAY_SECRETS_DIR": str(folder),
        "HEADWAY_ADMIN_KEY_FILE": str(folder / "admin.key"),
        "DATABASE_URL_FILE": str(folder / "database_url"),
        "AWS_ENDPOINT_URL_S3": "http://objects:8333",
        "AWS_ACCESS_KEY_ID_FILE": str(folder / "s3_access_key"),
        "AWS_SECRET_ACCESS_KEY_FILE": str(folder / "s3_secret_key"),
    }


def check(monkeypatch: pytest.MonkeyPatch, environment: Environment) -> tuple[int, list[str]]:
    """Exit code, and what failed."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(doctor, ["--config", "--json"])
    findings = json.loads(done.output)["findings"]
    return done.exit_code, [f"{one['name']}: {one['what']}" for one in findings if one["level"] == "failure"]


def test_made_secrets_pass(monkeypatch: pytest.MonkeyPatch, made: Environment) -> None:
    assert check(monkeypatch, made) == (0, [])
    assert Settings().database_url.startswith("postgresql://headway:")


@pytest.mark.parametrize(
    ("given", "failures"),
    [
        ({}, ["signing: keyless, without HEADWAY_SIGSTORE_IDENTITY and HEADWAY_SIGSTORE_ISSUER"]),
        ({"HEADWAY_SIGSTORE_TRUST": "/nowhere.json", "HEADWAY_SIGSTORE_ISSUER": "https://i.test"}, None),
    ],
)
def test_half_a_keyless_configuration(
    monkeypatch: pytest.MonkeyPatch, made: Environment, given: Environment, failures: list[str] | None
) -> None:
    identity = {"HEADWAY_SIGSTORE_IDENTITY": "https://git.test/x"} if given else {}
    code, found = check(monkeypatch, {**made, "HEADWAY_SIGNING_MODE": "keyless", **given, **identity})
    assert (code, found) == (1, failures or ["signing: HEADWAY_SIGSTORE_TRUST is no file"])


def test_secrets_are_made_once(made: Environment) -> None:
    folder = Path(made["HEADWAY_SECRETS_DIR"])
    before = {path.name: path.read_text() for path in folder.iterdir()}
    assert CliRunner().invoke(make_secrets, [str(folder)]).exit_code == 0
    assert {path.name: path.read_text() for path in folder.iterdir()} == before
    assert folder.stat().st_mode & 0o777 == 0o700
    identity = json.loads(before["s3.json"])["identities"][0]["credentials"][0]
    assert identity == {"accessKey": before["s3_access_key"].strip(), "secretKey": before["s3_secret_key"].strip()}
    assert before["postgres_password"].strip() in before["database_url"]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("database_url", "postgresql://headway:change-me-please-now@db/headway", "looks like a default"),
        ("database_url", "postgresql://headway:short@db/headway", "5 characters"),
        ("database_url", "mysql://a:b@db/headway", "begins with 'mysql'"),
        ("database_url", "", "which is empty"),
        ("s3_secret_key", "aaaaaaaaaaaaaaaaaaaa", "looks like a default"),
        ("broker-host.token", "", "is empty"),
        ("admin.key", "mfk_live_replace-with-your-own-key", "looks like a default"),
        ("broker-builder.token", None, "cannot be read"),
        ("s3_access_key", None, "cannot be read"),
    ],
)
def test_a_default_or_a_missing_secret_is_refused(
    monkeypatch: pytest.MonkeyPatch, made: Environment, file: str, content: str | None, said: str
) -> None:
    path = Path(made["HEADWAY_SECRETS_DIR"], file)
    path.unlink()
    if content is not None:
        path.write_text(content + "\n")
    code, failures = check(monkeypatch, made)
    assert code == 1
    assert len(failures) == 1
    assert said in failures[0]


def test_a_setting_that_is_wrong_or_unknown(monkeypatch: pytest.MonkeyPatch, made: Environment) -> None:
    code, failures = check(monkeypatch, {**made, "HEADWAY_BUILD_SLOTS": "many"})
    assert code == 1
    assert "integer" in failures[0]
    monkeypatch.delenv("HEADWAY_BUILD_SLOTS")
    monkeypatch.setenv("HEADWAY_BUILD_SLOT", "2")
    assert "nothing reads HEADWAY_BUILD_SLOT" in CliRunner().invoke(doctor, ["--config"]).output


def test_a_secret_is_given_once(monkeypatch: pytest.MonkeyPatch, made: Environment) -> None:
    code, failures = check(monkeypatch, {**made, "DATABASE_URL": "postgresql://x"})
    assert code == 1
    assert "are both set" in failures[0]


def test_no_secret_is_printed(monkeypatch: pytest.MonkeyPatch, made: Environment) -> None:
    for name, value in made.items():
        monkeypatch.setenv(name, value)
    shown = CliRunner().invoke(doctor, ["--config"]).output
    for path in Path(made["HEADWAY_SECRETS_DIR"]).iterdir():
        assert path.read_text().strip() not in shown


def test_a_profile_of_temporal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "TEMPORAL_PROFILE", "TEMPORAL_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "temporal.toml"
    file.write_text('[profile.cloud]\naddress = "cloud.test:7233"\nnamespace = "acme"\napi_key = "k"\n')
    found = connection("127.0.0.1:7072", "default", file, "cloud")
    assert (found["target_host"], found["namespace"], found["api_key"]) == ("cloud.test:7233", "acme", "k")
    assert connection("127.0.0.1:7072", "default", None, "default") == {
        "target_host": "127.0.0.1:7072",
        "namespace": "default",
    }
    monkeypatch.setenv("TEMPORAL_ADDRESS", "other.test:7233")
    assert connection("other.test:7233", "default", file, "cloud")["target_host"] == "other.test:7233"
    with pytest.raises(HeadwayError, match="nobody"):
        connection("127.0.0.1:7072", "default", file, "nobody")
    with pytest.raises(HeadwayError, match="not a file"):
        connection("127.0.0.1:7072", "default", tmp_path / "none.toml", "cloud")


@pytest.mark.parametrize("value", ["x" * 20, "postgres-password", "short", "CHANGEME-changeme"])
def test_weak(value: str) -> None:
    assert weak(value)


def test_who_keeps_the_apps_is_checked_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, made: Environment
) -> None:
    code, failed = check(monkeypatch, {**made, "HEADWAY_RUNTIME": "docker"})
    assert (code, failed) == (1, ["runtime: HEADWAY_RUNTIME is docker, and HEADWAY_ENGINE_IMAGE names no image"])
    assert check(monkeypatch, {**made, "HEADWAY_ENGINE_IMAGE": "apps:1"}) == (0, [])
    code, failed = check(monkeypatch, {**made, "HEADWAY_RUNTIME": "kubernetes"})
    assert code == 1
    assert "runtime" in failed[0]
