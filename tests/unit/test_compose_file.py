"""docker-compose.yml, .env.example and temporal/server against each other and against the code: nothing is started."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.main import DRAIN as API_DRAIN
from headway.settings import SECRETS, Settings
from headway.supervisor.components import DYNAMIC_CONFIG, SEARCH_ATTRIBUTES
from headway.supervisor.examine_config import OTHERS
from temporal.worker import DRAIN as WORKER_DRAIN

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
OURS = ("check", "migrate", "api", "control", "signing", "builder", "host", "rules", "web-config")
ONCE = ("check", "migrate", "web-config", "temporal-schema", "temporal-setup")
# What the server's own configuration template reads, of what concerns PostgreSQL (temporalio/server 1.3x).
TEMPORAL_VARIABLES = {
    "BIND_ON_IP",
    "DB",
    "DBNAME",
    "DB_PORT",
    "DYNAMIC_CONFIG_FILE_PATH",
    "POSTGRES_PWD",
    "POSTGRES_SEEDS",
    "POSTGRES_USER",
    "VISIBILITY_DBNAME",
}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_bounded_and_has_nothing_to_spare(name: str) -> None:
    service = SERVICES[name]
    limits = service["deploy"]["resources"]["limits"]
    assert {"memory", "cpus", "pids"} <= set(limits)
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    assert ":latest" not in service["image"]
    if not name.startswith("temporal"):
        assert service["read_only"] is True
        assert service["user"].split(":")[0].isdigit()
        assert service["user"] != "0:0"
    loose = any("unconfined" in option for option in service["security_opt"])
    assert loose == (name in ("builder", "host"))
    if name not in ONCE and name != "temporal-ui":
        assert service["healthcheck"]["retries"] >= 30
        assert service["restart"] == "unless-stopped"


def test_roles_reach_only_what_is_theirs() -> None:
    secrets = {name: set(SERVICES[name].get("secrets", ())) for name in OURS}
    keys = {"s3_access_key", "s3_secret_key"}
    assert [name for name in OURS if "database_url" in secrets[name]] == [
        "check",
        "migrate",
        "api",
        "control",
        "signing",
    ]
    assert [name for name in OURS if keys & secrets[name]] == ["check", "api", "control", "signing"]
    assert secrets["builder"] == {"broker-builder.token"}
    assert secrets["host"] == {"broker-host.token"}
    assert [name for name in SERVICES if any("keys:" in str(one) for one in SERVICES[name].get("volumes", ()))] == [
        "signing"
    ]
    for name in ("builder", "host", "web", "rules"):
        assert "rows" not in SERVICES[name].get("networks", ())


def test_everything_waits_for_the_check() -> None:
    """Directly or by what it waits for: no process of ours starts with a default secret."""

    def checked(name: str) -> bool:
        after = SERVICES[name].get("depends_on", {})
        return "check" in after or any(checked(other) for other in after if other in OURS)

    assert [name for name in (*OURS, "web") if name != "check" and not checked(name)] == []


def test_docker_waits_longer_than_a_drain() -> None:
    drain = max(WORKER_DRAIN, timedelta(seconds=API_DRAIN))
    for name in ("api", "control", "signing", "builder", "host"):
        assert timedelta(seconds=int(SERVICES[name]["stop_grace_period"].removesuffix("s"))) > 2 * drain
    assert SERVICES["api"]["deploy"]["replicas"] == 2


def test_every_variable_is_explained_once() -> None:
    used = set(re.findall(r"\$\{([A-Z0-9_]+)", TEXT))
    example = (ROOT / ".env.example").read_text()
    explained = set(re.findall(r"^([A-Z0-9_]+)=", example, re.M))
    assert used - explained == set()
    assert explained - used == {"COMPOSE_PROFILES"}
    # The defaults of both are the same.
    given = dict(re.findall(r"^([A-Z0-9_]+)=(.*)$", example, re.M))
    for name, default in re.findall(r"\$\{([A-Z0-9_]+):?-([^}]*)\}", TEXT):
        assert given[name] == default, name


@pytest.mark.parametrize("name", OURS)
def test_every_setting_is_one(name: str) -> None:
    known = {field.alias or f"HEADWAY_{field_name.upper()}" for field_name, field in Settings.model_fields.items()}
    known |= OTHERS | {f"{secret}_FILE" for secret in SECRETS} | {"AWS_EC2_METADATA_DISABLED"}
    assert set(SERVICES[name].get("environment", {})) - known == set()


def test_the_temporal_server_is_set_up_as_the_embedded_one() -> None:
    folder = ROOT / "temporal" / "server"
    dynamic = yaml.safe_load((folder / "dynamicconfig.yaml").read_text())
    for name, values in dynamic.items():
        assert [DYNAMIC_CONFIG[name]] == [one["value"] for one in values]
    setup = (folder / "setup.sh").read_text()
    assert tuple(re.findall(r"--name (\w+) --type Keyword", setup)) == SEARCH_ATTRIBUTES


def test_the_temporal_server_is_set_up_for_postgresql() -> None:
    """By its names alone: no server on PostgreSQL can be run where its image cannot be had."""
    server = SERVICES["temporal"]["environment"]
    assert set(server) | {"POSTGRES_PWD"} == TEMPORAL_VARIABLES
    assert server["DB"] == "postgres12"
    assert "POSTGRES_PWD" not in TEXT
    assert "POSTGRES_PWD" in (ROOT / "temporal" / "server" / "start-server.sh").read_text()
    made = (ROOT / "temporal" / "server" / "create-databases.sh").read_text()
    schema = (ROOT / "temporal" / "server" / "schema.sh").read_text()
    for database in (server["DBNAME"], server["VISIBILITY_DBNAME"]):
        assert f"CREATE DATABASE {database} OWNER {server['POSTGRES_USER']}" in made
        assert database in schema
    versions = {
        SERVICES[name]["image"].rpartition(":")[2] for name in ("temporal", "temporal-schema", "temporal-setup")
    }
    assert len(versions) == 1
