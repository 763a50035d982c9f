"""A build gets the secrets that its headway.toml lists, and no other; none of them is ever shown."""

# ruff: noqa: F811
from __future__ import annotations

import base64
import hashlib

import pytest

from adapters.config.vault import Vault
from adapters.sandbox import capabilities
from store.config_values import Owner, set_value
from store.models import Build
from tests.adapters.test_produce import Platform, command, objects, platform  # noqa: F401

pytestmark = pytest.mark.skipif(not capabilities().ok, reason="no sandbox here")

CANARY = "canary/7c1f+9a2e=long enough"
OTHER = "never-listed-5d0e"
LISTED = 'secrets = ["CANARY"]'


def set_secret(platform: Platform, name: str, value: str) -> None:
    vault = Vault(platform.root / "config.key")
    with platform.store.write() as session:
        owner = Owner(platform.world.site_id, platform.world.env_id)
        set_value(session, vault, owner, name, value, {"type": "test"}, secret=True)


@pytest.fixture
def stocked(platform: Platform) -> Platform:
    set_secret(platform, "CANARY", CANARY)
    set_secret(platform, "OTHER", OTHER)
    return platform


PRINTS = (
    'echo plain $CANARY; printf %s "$CANARY" | base64; printf \'user:%s\' "$CANARY" | base64; '
    'printf "in halves ${CANARY%%2e*}"; sleep 0.3; echo "2e${CANARY#*2e}"; echo $CANARY >&2; '
    "head -c 8185 /dev/zero | tr '\\0' x; echo \"$CANARY\"; "
    'mkdir dist; printf %s "$CANARY" | sha256sum > dist/index.html; env > dist/env; sed -i /CANARY/d dist/env'
)


def test_listed_secrets_reach_the_build_and_are_redacted_everywhere(stocked: Platform) -> None:
    stocked.repo.commit(command(PRINTS, LISTED))
    output = stocked.build()
    digest = hashlib.sha256(CANARY.encode()).hexdigest().encode()
    assert stocked.content(output.manifest_sha256, "index.html").startswith(digest)
    assert OTHER.encode() not in stocked.content(output.manifest_sha256, "env")
    told = stocked.events.path(stocked.order.job_id).read_text()
    for hidden in (CANARY, CANARY[:12], base64.b64encode(CANARY.encode()).decode()[:-4], OTHER, "9a2e"):
        assert hidden not in told
    lines = stocked.log()
    assert lines[0] == "plain [CANARY redacted]"
    assert lines[1] == "[CANARY redacted]"
    assert "in halves [CANARY redacted]" in lines
    assert "[CANARY redacted]" in stocked.log("stderr")
    row = stocked.row
    assert row.plan is not None
    assert row.plan["secrets"] == ["CANARY"]
    assert CANARY not in repr(row)


def test_a_secret_that_is_not_listed_is_absent(stocked: Platform) -> None:
    stocked.repo.commit(command('mkdir dist; env > dist/env; test -z "$CANARY$OTHER"'))
    assert CANARY.encode() not in stocked.content(stocked.build().manifest_sha256, "env")
    assert stocked.row.plan is not None
    assert "secrets" not in stocked.row.plan


def test_a_name_that_the_environment_does_not_have_is_named(stocked: Platform) -> None:
    error = stocked.failure(command("true", 'secrets = ["NOWHERE"]'))
    assert (error.type, "NOWHERE" in error.message) == ("build.secret_refused", True)
    assert stocked.failure(command("true", 'secrets = ["PATH"]')).type in (
        "build.config_invalid",
        "build.secret_refused",
    )
    both = stocked.failure(command("true", 'secrets = ["CANARY"]\nenv = { CANARY = "x" }'))
    assert both.type == "build.config_invalid"


def test_strangers_get_none(stocked: Platform) -> None:
    stocked.repo.commit(command("mkdir dist; touch dist/a", LISTED))
    order = stocked.accept()
    with stocked.store.write() as session:
        session.get_one(Build, order.build_id).actor = {"type": "fork", "untrusted": True}
    stocked.order = order
    with pytest.raises(Exception, match="may not push") as caught:
        stocked.run(order)
    assert getattr(caught.value, "type", None) == "build.secret_refused"


def test_another_value_is_another_build(stocked: Platform) -> None:
    stocked.repo.commit(command("mkdir dist; touch dist/a", LISTED))
    stocked.succeed(stocked.build().manifest_sha256)
    stocked.build()
    assert stocked.row.cache is not None
    assert stocked.row.cache["hit"]
    set_secret(stocked, "CANARY", CANARY + "2")
    stocked.build()
    assert stocked.row.cache is not None
    assert not stocked.row.cache["hit"]


def test_variables_that_tell_something_are_hidden_and_words_are_not(platform: Platform) -> None:
    settings = 'env = { API_URL = "https://api.internal.example/v1", MODE = "production" }'
    platform.repo.commit(command("echo $API_URL in $MODE; mkdir dist; touch dist/a", settings))
    platform.build()
    assert platform.log() == ["[API_URL redacted] in production"]
