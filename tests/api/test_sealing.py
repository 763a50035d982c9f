"""From the row to the host: registered keys, and a rollout's configuration sealed to each one's own."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from adapters.config.sealed import SealedError, make_host_key, open_sealed, public_of, seat_of
from adapters.hosting.configuration import Configuration as HostConfiguration
from adapters.redaction import hidden_of
from api.internal.configuration import Configuration
from headway.broker import HostHello, Known, RollSpec, SealedConfig
from headway.errors import HeadwayError
from store.models import Environment, Rollout
from tests.api.test_broker import Roles, failure
from tests.api.test_configuration import Place
from tests.api.world import World, data, error
from tests.workflows.rows import claim_next

pytestmark = pytest.mark.anyio


@pytest.fixture
async def place(api: World) -> Place:
    return await Place.make(api, (await api.tenant("Alice"))[1])


@pytest.fixture
async def roles(api: World) -> Roles:
    return Roles(api)


def host_key(folder: Path, name: str = "local") -> Path:
    make_host_key(folder / f"{name}.key")
    return folder / f"{name}.key"


def of(role: str, host_id: str) -> str:
    return f"host:{host_id}" if role == "host" and host_id != "local" else role


async def hello(roles: Roles, host_id: str, key: Path, role: str = "host", **more: Any) -> Any:
    return await roles.ask(of(role, host_id), "PUT", f"/hosts/{host_id}", {"public_key": public_of(key), **more})


async def claimed(place: Place, digit: str = "a") -> str:
    """A rollout that is being carried out."""
    artifact = place.api.artifact(place.site["id"], place.env_id, digit * 64)
    job = data(await place.client.post(f"{place.of_env}/deployments", json={"artifact_id": artifact}))
    with place.api.store.write() as session:
        claim_next(session, place.env_id)
    return str(job["resource"]["id"])


async def ask(roles: Roles, rollout: str, host_id: str = "local", role: str = "host") -> Any:
    return await roles.ask(of(role, host_id), "GET", f"/rollouts/{rollout}/config")


def unsealed(answer: Any, key: Path, folder: Path) -> dict[str, str]:
    assert answer.status_code == 200, answer.text
    (folder / "sealed").write_bytes(base64.b64decode(answer.json()["sealed"]))
    return open_sealed(folder / "sealed", key)


async def test_a_host_gets_the_configuration_of_its_rollout_and_only_it_can_read_it(
    api: World, place: Place, roles: Roles, tmp_path: Path
) -> None:
    await place.put("variables", "COLOR", "grey", place.of_site)
    await place.put("variables", "COLOR", "red")
    await place.put("secrets", "TOKEN", "hush-hush")
    rollout = await claimed(place)
    assert failure(await ask(roles, rollout), 404) == "host.not_found"
    key, other = host_key(tmp_path), host_key(tmp_path, "other")
    assert (await hello(roles, "local", key, labels=["eu", "eu"])).json() == {"host_id": "local", "labels": ["eu"]}
    answer = await ask(roles, rollout)
    assert unsealed(answer, key, tmp_path) == {"COLOR": "red", "TOKEN": "hush-hush", "HEADWAY_SHOWN": "COLOR"}
    assert "hush" not in answer.text
    with pytest.raises(SealedError):
        unsealed(answer, other, tmp_path)
    seat = seat_of(base64.b64decode(answer.json()["sealed"]))
    assert (seat.host_id, seat.env_id, seat.seq, seat.rollout_id) == ("local", place.env_id, 1, rollout)
    spec = RollSpec.model_validate((await roles.ask("host", "GET", f"/rollouts/{rollout}")).json())
    assert spec.config_version == seat.config_version == 1


async def test_a_host_hears_which_values_may_stand_in_logs(place: Place, roles: Roles, tmp_path: Path) -> None:
    for name, value in {"MODE": "production", "DEBUG": "true", "BACKEND": "https://u:pw@backend.test"}.items():
        await place.put("variables", name, value)
    await place.put("secrets", "WORD", "true")
    rollout = await claimed(place)
    key = host_key(tmp_path)
    await hello(roles, "local", key)
    given = unsealed(await ask(roles, rollout), key, tmp_path)
    assert hidden_of(given) == {"BACKEND": "https://u:pw@backend.test", "WORD": "true"}


async def test_two_hosts_two_sealings_and_a_third_has_no_part(
    api: World, place: Place, roles: Roles, tmp_path: Path
) -> None:
    await place.put("secrets", "TOKEN", "hush-hush")
    api.change(Environment, place.env_id, hosts=["one", "two"])
    rollout = await claimed(place)
    keys = {name: host_key(tmp_path, name) for name in ("one", "two", "three")}
    for name, key in keys.items():
        assert (await hello(roles, name, key)).status_code == 200
    sealed = {name: await ask(roles, rollout, name) for name in keys}
    assert unsealed(sealed["one"], keys["one"], tmp_path) == unsealed(sealed["two"], keys["two"], tmp_path)
    with pytest.raises(SealedError):
        unsealed(sealed["one"], keys["two"], tmp_path)
    assert failure(sealed["three"], 404) == "deployment.not_found"


async def test_roles_states_and_bad_keys_are_refused(place: Place, roles: Roles, tmp_path: Path) -> None:
    key = host_key(tmp_path)
    for role in ("builder", "control", "signing"):
        assert failure(await hello(roles, "local", key, role), 403) == "role.insufficient"
        assert failure(await ask(roles, "dep_none", role=role), 403) == "role.insufficient"
    bad = await roles.ask("host", "PUT", "/hosts/local", {"public_key": "x" * 44})
    assert failure(bad, 400) == "request.invalid_parameter"
    assert failure(await hello(roles, "..%2f", key), 404) == "route.not_found"
    assert failure(await hello(roles, "-a", key), 400) == "request.invalid_parameter"
    await hello(roles, "local", key)
    assert failure(await ask(roles, "dep_none"), 404) == "deployment.not_found"
    await place.put("secrets", "TOKEN", "hush-hush")
    first = await place.deploy("a")
    # What runs may be asked for again: a host may have come back with nothing.
    assert unsealed(await ask(roles, first["deployment_id"]), key, tmp_path) == {"TOKEN": "hush-hush"}
    await place.deploy("b")
    assert failure(await ask(roles, first["deployment_id"]), 409) == "attempt.stale"
    waiting = data(await place.client.post(f"{place.of_env}/deployments", json={"artifact_id": first["artifact_id"]}))
    assert failure(await ask(roles, waiting["resource"]["id"]), 409) == "attempt.stale"


async def test_a_changed_key_waits_for_the_operator(api: World, place: Place, roles: Roles, tmp_path: Path) -> None:
    await place.put("secrets", "TOKEN", "hush-hush")
    rollout = await claimed(place)
    old, new, third = (host_key(tmp_path, name) for name in ("old", "new", "third"))
    await hello(roles, "local", old)
    assert failure(await hello(roles, "local", new), 409) == "host.key_changed"
    assert unsealed(await ask(roles, rollout), old, tmp_path) == {"TOKEN": "hush-hush"}
    shown = data(await api.admin.get("/v1/hosts/local"))
    assert (shown["public_key"], shown["offered_key"]) == (public_of(old), public_of(new))
    accept = "/v1/hosts/local/accept"
    refused = error(await api.admin.post(accept, json={"public_key": public_of(third)}), 409)
    assert refused["code"] == "host.key_mismatch"
    assert data(await api.admin.post(accept, json={"public_key": public_of(new)}))["offered_key"] is None
    assert unsealed(await ask(roles, rollout), new, tmp_path) == {"TOKEN": "hush-hush"}
    assert (await hello(roles, "local", new)).status_code == 200
    assert data(await api.admin.delete("/v1/hosts/local")) == {"id": "local", "deleted": True}
    assert failure(await ask(roles, rollout), 404) == "host.not_found"


async def test_hosts_are_the_operators_alone(api: World, roles: Roles, tmp_path: Path) -> None:
    _, alice = await api.tenant("Bob")
    key = host_key(tmp_path)
    await hello(roles, "local", key)
    assert error(await alice.get("/v1/hosts"), 403)["code"] == "role.insufficient"
    assert error(await alice.get("/v1/hosts/local"), 404)["code"] == "host.not_found"
    accept = await alice.post("/v1/hosts/local/accept", json={"public_key": public_of(key)})
    assert error(accept, 404)["code"] == "host.not_found"
    assert error(await alice.delete("/v1/hosts/local"), 404)["code"] == "host.not_found"
    assert [row["id"] for row in data(await api.admin.get("/v1/hosts"))] == ["local"]


async def test_what_is_revoked_between_claim_and_sealing_is_replaced_and_recorded(
    place: Place, roles: Roles, tmp_path: Path
) -> None:
    key = host_key(tmp_path)
    await hello(roles, "local", key)
    old = await place.put("secrets", "TOKEN", "stolen-token")
    rollout = await claimed(place)
    new = await place.put("secrets", "TOKEN", "fresh-token")
    revoke = f"{place.of_env}/secrets/TOKEN/revoke"
    data(await place.client.post(revoke, json={"version_id": old["version_id"]}))
    assert unsealed(await ask(roles, rollout), key, tmp_path) == {"TOKEN": "fresh-token"}
    replaced = [{"name": "TOKEN", "revoked": old["version_id"], "version_id": new["version_id"]}]
    assert place.api.one(Rollout, id=rollout).config_replaced == replaced
    release = await place.rolled()
    assert release["config"]["replaced"] == replaced
    assert [row["version"] for row in release["config"]["secrets"]] == [2]


class Near:
    """The broker's own functions, without the wire."""

    def __init__(self, api: World) -> None:
        self._inner = Configuration(api.store, api.parts.vault)

    def get_config(self, rollout_id: str) -> SealedConfig:
        return self._inner.sealed(rollout_id, "local")

    def hello(self, host_id: str, hello: HostHello, *, patience: float | None = None) -> Known:  # noqa: ARG002
        return self._inner.hello(host_id, hello)


async def test_a_host_keeps_its_configuration_beside_the_release(api: World, place: Place, tmp_path: Path) -> None:
    await place.put("secrets", "TOKEN", "hush-hush")
    rollout = await claimed(place)
    folder = tmp_path / "host" / "env" / place.env_id / "r" / "1"
    folder.mkdir(parents=True)
    host = HostConfiguration("local", tmp_path / "host" / "identity.key", Near(api), ["eu"])
    host.place(rollout, folder)
    assert data(await api.admin.get("/v1/hosts/local"))["labels"] == ["eu"]
    assert open_sealed(folder / "config.sealed", host.key_file) == {"TOKEN": "hush-hush"}
    stranger = HostConfiguration("local", tmp_path / "stranger.key", Near(api))
    with pytest.raises(HeadwayError) as refused:
        stranger.register()
    assert refused.value.code == "host.key_changed"
    await stranger_is_useless(stranger, rollout, tmp_path)


async def stranger_is_useless(stranger: HostConfiguration, rollout: str, folder: Path) -> None:
    """Whoever asks in a host's name gets bytes for that host's own key."""
    (folder / "sealed").write_bytes(stranger.fetch(rollout))
    with pytest.raises(SealedError):
        open_sealed(folder / "sealed", stranger.key_file)
