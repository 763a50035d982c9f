"""Variables and secrets over the API: versions, freezing, rollback, revocation, tenants, and a canary."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.main import ensure_key
from store.config_keys import values_are_hidden
from store.models import Job, Rollout
from store.models_configuration import ConfigValue
from tests.api.world import World, data, error
from tests.workflows.rows import claim_next

pytestmark = pytest.mark.anyio
Json = dict[str, Any]


class Place:
    """One site with its production environment, and the calls of its configuration."""

    def __init__(self, api: World, client: httpx.AsyncClient, site: Json, env_id: str) -> None:
        self.api, self.client, self.site, self.env_id = api, client, site, env_id
        self.of_site = f"/v1/sites/{site['id']}"
        self.of_env = f"{self.of_site}/environments/{env_id}"

    @classmethod
    async def make(cls, api: World, client: httpx.AsyncClient, name: str = "Acme") -> Place:
        site = await api.site(client, name)
        return cls(api, client, site, site["production_env_id"])

    async def put(self, noun: str, key: str, value: str, base: str | None = None) -> Json:
        return dict(data(await self.client.put(f"{base or self.of_env}/{noun}/{key}", json={"value": value})))

    async def deploy(self, digit: str = "a") -> Json:
        artifact = self.api.artifact(self.site["id"], self.env_id, digit * 64)
        data(await self.client.post(f"{self.of_env}/deployments", json={"artifact_id": artifact}))
        return await self.rolled()

    async def rolled(self) -> Json:
        release = self.api.roll(self.env_id)
        return dict(data(await self.client.get(f"{self.of_env}/releases/{release}")))

    async def roll_back(self, to: Json, **more: Any) -> Json:
        current = data(await self.client.get(f"{self.of_env}/releases"))[0]
        path = f"{self.of_env}/deployments/{current['deployment_id']}/rollback"
        data(await self.client.post(path, json={"release_id": to["id"], **more}))
        return await self.rolled()


@pytest.fixture
async def place(api: World) -> Place:
    return await Place.make(api, (await api.tenant("Alice"))[1])


def names(release: Json, kind: str = "variables") -> dict[str, int]:
    return {row["name"]: row["version"] for row in release["config"][kind]}


async def test_a_variable_has_versions_and_a_secret_no_value(place: Place) -> None:
    one = await place.put("variables", "COLOR", "red")
    two = await place.put("variables", "COLOR", "blue")
    assert (one["version"], two["version"], two["value"], two["live"]) == (1, 2, "blue", False)
    assert one["version_id"] != two["version_id"]
    assert one["actor"]["type"] == "api_key"
    secret = await place.put("secrets", "TOKEN", "hush-hush")
    assert "value" not in secret
    for path in ("/secrets", "/secrets/TOKEN", "/secrets/TOKEN/versions"):
        assert "hush" not in (await place.client.get(place.of_env + path)).text
    assert [row["key"] for row in data(await place.client.get(place.of_env + "/variables"))] == ["COLOR"]
    versions = data(await place.client.get(place.of_env + "/variables/COLOR/versions"))
    assert [(row["version"], row["value"], row["current"]) for row in versions] == [
        (2, "blue", True),
        (1, "red", False),
    ]


async def test_the_environment_wins_over_the_site(place: Place) -> None:
    await place.put("variables", "COLOR", "grey", place.of_site)
    await place.put("variables", "SIZE", "small", place.of_site)
    await place.put("variables", "COLOR", "red")
    rows = {
        row["key"]: (row["value"], row["source"]) for row in data(await place.client.get(place.of_env + "/variables"))
    }
    assert rows == {"COLOR": ("red", "environment"), "SIZE": ("small", "site")}
    refused = error(await place.client.delete(place.of_env + "/variables/SIZE"), 404)
    assert (refused["code"], "site's default" in refused["message"]) == ("variable.not_found", True)
    assert data(await place.client.delete(place.of_env + "/variables/COLOR"))["deleted"] is True
    assert data(await place.client.get(place.of_env + "/variables/COLOR"))["value"] == "grey"
    release = await place.deploy()
    assert names(release) == {"COLOR": 1, "SIZE": 1}


async def test_a_change_applies_with_the_next_rollout_and_a_release_says_what_it_has(place: Place) -> None:
    await place.put("variables", "COLOR", "red")
    await place.put("secrets", "TOKEN", "hush-hush")
    first = await place.deploy("a")
    assert (names(first), names(first, "secrets")) == ({"COLOR": 1}, {"TOKEN": 1})
    assert first["config"]["version"] == 1
    again = await place.deploy("b")
    assert again["config"]["version"] == 1, "the same configuration has one number"
    await place.put("variables", "COLOR", "blue")
    shown = data(await place.client.get(f"{place.of_env}/releases/{again['id']}"))
    assert names(shown) == {"COLOR": 1}
    assert data(await place.client.get(place.of_env + "/variables/COLOR"))["live"] is False
    third = await place.deploy("c")
    assert (third["config"]["version"], names(third)) == (2, {"COLOR": 2})
    assert data(await place.client.get(place.of_env + "/variables/COLOR"))["live"] is True


async def test_what_is_set_while_a_rollout_waits_comes_with_it_and_after_its_claim_does_not(place: Place) -> None:
    await place.put("variables", "COLOR", "red")
    artifact = place.api.artifact(place.site["id"], place.env_id)
    data(await place.client.post(f"{place.of_env}/deployments", json={"artifact_id": artifact}))
    await place.put("variables", "COLOR", "blue")
    waiting = data(await place.client.get(f"{place.of_env}/deployments"))[0]
    assert (waiting["config_version"], waiting["keep_config"]) == (None, False)
    with place.api.store.write() as session:
        claim_next(session, place.env_id)
    assert data(await place.client.get(f"{place.of_env}/deployments"))[0]["config_version"] == 1
    await place.put("variables", "COLOR", "green")
    assert names(await place.rolled()) == {"COLOR": 2}


async def test_a_rollback_restores_code_and_configuration(place: Place) -> None:
    await place.put("variables", "COLOR", "red")
    await place.put("variables", "OLD", "1")
    first = await place.deploy("a")
    await place.put("variables", "COLOR", "blue")
    await place.client.delete(place.of_env + "/variables/OLD")
    await place.put("secrets", "NEW", "hush-hush")
    await place.deploy("b")
    back = await place.roll_back(first)
    assert back["config"] == first["config"]
    assert back["artifact_id"] == first["artifact_id"]
    await place.deploy("c")
    kept = await place.roll_back(first, keep_config=True)
    assert (names(kept), names(kept, "secrets")) == ({"COLOR": 2}, {"NEW": 1})
    assert kept["artifact_id"] == first["artifact_id"]


async def test_a_promote_takes_the_targets_configuration(place: Place) -> None:
    staging = await place.api.environment(place.client, place.site["id"], "staging", "next")
    stage = Place(place.api, place.client, place.site, staging["id"])
    await stage.put("variables", "COLOR", "yellow")
    await place.put("variables", "COLOR", "red")
    await place.put("variables", "COLOR", "blue")
    await stage.deploy()
    data(await place.client.post(f"{stage.of_env}/promote", json={"to_env": "production"}))
    assert names(await place.rolled()) == {"COLOR": 2}


async def test_a_revoked_version_is_replaced_by_the_newest_and_the_job_says_so(place: Place) -> None:
    old = await place.put("secrets", "TOKEN", "stolen-token")
    gone = await place.put("secrets", "GONE", "also-stolen")
    first = await place.deploy("a")
    new = await place.put("secrets", "TOKEN", "fresh-token")
    await place.deploy("b")
    for key, row in (("TOKEN", old), ("GONE", gone)):
        path = f"{place.of_env}/secrets/{key}/revoke"
        revoked = data(await place.client.post(path, json={"version_id": row["version_id"]}))
        assert revoked["revoked_at"] is not None
        assert data(await place.client.post(path, json={"version_id": row["version_id"]})) == revoked
    back = await place.roll_back(first)
    assert names(back, "secrets") == {"TOKEN": 2}
    replaced = [
        {"name": "GONE", "revoked": gone["version_id"], "version_id": None},
        {"name": "TOKEN", "revoked": old["version_id"], "version_id": new["version_id"]},
    ]
    assert back["config"]["replaced"] == replaced
    job = place.api.one(Rollout, id=back["deployment_id"]).job_id
    assert data(await place.client.get(f"/v1/jobs/{job}"))["result"]["config_replaced"] == replaced
    assert place.api.one(ConfigValue, id=old["version_id"]).ciphertext is None, "the value is destroyed"
    versions = data(await place.client.get(f"{place.of_env}/secrets/TOKEN/versions"))
    assert [row["ended_by"] for row in versions] == [None, new["actor"]]
    assert error(await place.client.get(f"{place.of_env}/secrets/GONE"), 404)["code"] == "secret.not_found"
    # What ran before says what it ran with: history is not rewritten.
    shown = data(await place.client.get(f"{place.of_env}/releases/{first['id']}"))
    assert names(shown, "secrets") == {"GONE": 1, "TOKEN": 1}


async def test_bad_names_and_values_are_refused(place: Place) -> None:
    for key in ("lower", "1ST", "WITH-DASH", "A" * 129, "É", "PORT", "PATH", "LD_PRELOAD", "HEADWAY_TOKEN", "_"):
        for noun in ("secrets", "variables"):
            refused = error(await place.client.put(f"{place.of_env}/{noun}/{key}", json={"value": "x"}), 400)
            assert (refused["code"], refused["param"]) == ("request.invalid_parameter", "key"), key
    for body, param in (
        ({"value": "x" * (64 * 1024 + 1)}, "value"),
        ({"value": ""}, "value"),
        ({}, "value"),
        ({"value": 7}, "value"),
        ({"value": "x", "extra": "canary-in-an-error"}, "extra"),
    ):
        answer = await place.client.put(f"{place.of_env}/secrets/TOKEN", json=body)
        assert error(answer, 400)["param"] == param
        assert "canary" not in answer.text
        assert "xxx" not in answer.text
    assert data(await place.client.get(place.of_env + "/secrets")) == []


async def test_a_name_is_a_variable_or_a_secret(place: Place) -> None:
    await place.put("variables", "TOKEN", "shown")
    refused = error(await place.client.put(f"{place.of_env}/secrets/TOKEN", json={"value": "hush-hush"}), 409)
    assert refused["code"] == "config.kind_taken"
    # As a default of the site it may be another kind: the environment's own wins.
    await place.put("secrets", "TOKEN", "hush-hush", place.of_site)
    assert data(await place.client.get(place.of_env + "/secrets")) == []
    release = await place.deploy()
    assert (names(release), names(release, "secrets")) == ({"TOKEN": 1}, {})


async def test_numbers_and_sizes_are_bounded(place: Place) -> None:
    for number in range(8):
        await place.put("variables", f"BIG_{number}", "x" * 60_000)
    refused = error(await place.client.put(f"{place.of_env}/variables/MORE", json={"value": "x" * 60_000}), 402)
    assert (refused["code"], refused["param"]) == ("quota.exceeded", "value")
    await place.put("variables", "BIG_0", "y" * 60_000)


async def test_another_tenant_learns_nothing(api: World, place: Place) -> None:
    _, bob = await api.tenant("Bob")
    await place.put("secrets", "TOKEN", "hush-hush")
    for base in (place.of_env, place.of_site):
        for noun in ("secrets", "variables"):
            for path in (f"/{noun}", f"/{noun}/TOKEN", f"/{noun}/TOKEN/versions"):
                assert error(await bob.get(base + path), 404)["code"] == "site.not_found"
            put = await bob.put(f"{base}/{noun}/TOKEN", json={"value": "mine now"})
            assert error(put, 404)["code"] == "site.not_found"
            assert error(await bob.delete(f"{base}/{noun}/TOKEN"), 404)["code"] == "site.not_found"
        revoke = await bob.post(f"{base}/secrets/TOKEN/revoke", json={"version_id": "cfg_0000000000"})
        assert error(revoke, 404)["code"] == "site.not_found"


async def test_a_version_of_elsewhere_cannot_be_revoked(api: World, place: Place) -> None:
    _, bob = await api.tenant("Bob")
    theirs = await Place.make(api, bob, "Theirs")
    other = await theirs.put("secrets", "TOKEN", "not-yours")
    variable = await place.put("variables", "COLOR", "red")
    await place.put("secrets", "TOKEN", "hush-hush")
    for key, row in (("TOKEN", other), ("COLOR", variable)):
        answer = await place.client.post(f"{place.of_env}/secrets/{key}/revoke", json={"version_id": row["version_id"]})
        assert error(answer, 404)["code"] == "secret.not_found"
    assert place.api.one(ConfigValue, id=other["version_id"]).revoked_at is None


async def test_scopes_and_pins(api: World, place: Place) -> None:
    team = place.site["team_id"]
    reader = api.client(await api.key(team, None, ["secrets:read"]))
    assert (await reader.get(f"{place.of_env}/secrets")).status_code == 200
    assert error(await reader.get(f"{place.of_env}/variables"), 403)["code"] == "scope.insufficient"
    put = await reader.put(f"{place.of_env}/secrets/TOKEN", json={"value": "x-y-z"})
    assert error(put, 403)["code"] == "scope.insufficient"
    pin = {"type": "environment", "id": place.env_id}
    pinned = api.client(await api.key(team, None, ["secrets:write"], resource=pin))
    assert (await pinned.put(f"{place.of_env}/secrets/TOKEN", json={"value": "x-y-z"})).status_code == 200
    put = await pinned.put(f"{place.of_site}/secrets/TOKEN", json={"value": "x-y-z"})
    assert error(put, 403)["code"] == "scope.insufficient"


async def test_a_canary_is_found_nowhere(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    canary = "canary-3f7a9c51"
    for base in (place.of_env, place.of_site):
        row = await place.put("secrets", "CANARY", canary, base)
        answer = await place.client.put(
            f"{base}/secrets/CANARY", json={"value": canary}, headers={"Idempotency-Key": "k1"}
        )
        assert canary not in answer.text
        path = f"{base}/secrets/CANARY/revoke"
        await place.client.post(path, json={"version_id": row["version_id"]}, headers={"Idempotency-Key": "k2"})
    await place.client.put(f"{place.of_env}/secrets/CANARY", json={"value": [canary]})
    await place.client.put(f"{place.of_env}/secrets/not a name", json={"value": canary})
    await place.deploy()
    for path in ("/v1/jobs", place.of_env + "/releases", place.of_env + "/deployments", place.of_env + "/secrets"):
        assert canary not in (await place.client.get(path)).text
    digests = [hashlib.sha256(text.encode()).hexdigest().encode() for text in (canary, f'{{"value":"{canary}"}}')]
    searched = 0
    for folder, _, files in os.walk(place.api.folder):
        for name in files:
            searched += 1
            raw = Path(folder, name).read_bytes()
            assert not any(one in raw for one in (canary.encode(), *digests)), name
    assert searched >= 3
    assert canary not in caplog.text
    assert place.api.count(Job) == 2


async def test_a_deleted_environments_values_are_destroyed(place: Place) -> None:
    from store.outcomes import retire_environment

    row = await place.put("secrets", "TOKEN", "hush-hush")
    with place.api.store.write() as session:
        retire_environment(session, place.env_id)
    kept = place.api.one(ConfigValue, id=row["version_id"])
    assert (kept.ciphertext, kept.wrapped_key, kept.current) == (None, None, False)


async def test_a_lost_key_is_not_replaced_while_values_need_it(api: World, place: Place, tmp_path: Path) -> None:
    key = api.folder / "config.key"
    kept = key.read_bytes()
    key.unlink()
    ensure_key(api.store, key, values_are_hidden)
    assert key.exists(), "nothing needs the old one yet"
    key.write_bytes(kept)
    await place.put("variables", "COLOR", "red")
    key.unlink()
    ensure_key(api.store, key, values_are_hidden)
    assert not key.exists()
    for answer in (
        await place.client.get(f"{place.of_env}/variables/COLOR"),
        await place.client.put(f"{place.of_env}/secrets/TOKEN", json={"value": "hush-hush"}),
    ):
        assert error(answer, 500)["code"] == "config.unreadable"
    key.write_bytes(kept)
    assert data(await place.client.get(f"{place.of_env}/variables/COLOR"))["value"] == "red"
    assert data(await place.client.get(f"{place.of_env}/secrets")) == [], "nothing was half done"
