"""A new configuration key, while values are being set; and what a configuration's number is worth."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import Session, select

from adapters.config.vault import Vault, add_key, forget_keys, make_key_file
from headway.errors import HeadwayError
from store import credentials, forge_links, forges, webhooks
from store.config_keys import HIDDEN, WEBHOOKS, rewrap_all, values_are_hidden
from store.config_sets import values_of
from store.config_values import KEPT_VERSIONS, Owner, open_value, revoke_value, set_value, unset_value
from store.credentials import Credential
from store.models import Site, utcnow
from store.models_configuration import ConfigValue
from store.models_reports import ForgeLink
from store.models_repositories import RepositoryCredential
from store.models_sandboxes import Sandbox
from store.models_webhooks import ForgeHook, WebhookEndpoint
from store.outcomes import append_release
from store.sandbox_env import env_of, keep_env
from store.session import Store
from tests.workflows.rows import World, claim_next


@pytest.fixture
def world(store: Store) -> World:
    return World.make(store)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    make_key_file(tmp_path / "config.key")
    return tmp_path / "config.key"


def put(world: World, vault: Vault, name: str, value: str, *, secret: bool = True) -> ConfigValue:
    owner = Owner(world.site_id, world.env_id)
    return world.store.in_write(lambda session: set_value(session, vault, owner, name, value, {}, secret=secret))


def rows(store: Store) -> list[ConfigValue]:
    with store.read() as session:
        return list(session.exec(select(ConfigValue)).all())


def test_every_value_is_under_the_new_key_and_opens(world: World, keys: Path) -> None:
    vault = Vault(keys)
    for number in range(120):
        put(world, vault, f"NAME_{number}", f"value {number}")
    revoked = put(world, vault, "GONE", "withdrawn")
    with world.store.write() as session:
        revoke_value(session, Owner(world.site_id, world.env_id), "GONE", revoked.id, {})
    old = vault.key_ids()
    before = {row.id: row.ciphertext for row in rows(world.store)}
    fresh = add_key(keys)
    assert rewrap_all(world.store, vault) == 120
    assert rewrap_all(world.store, vault) == 0
    forget_keys(keys, set(old))
    for row in rows(world.store):
        assert row.ciphertext == before[row.id], "the value itself is not touched"
        if row.id != revoked.id:
            assert row.key_id == fresh
            assert open_value(vault, row) == f"value {row.name.removeprefix('NAME_')}"


def test_a_sandboxs_variables_move_to_the_new_key_too(world: World, keys: Path) -> None:
    vault = Vault(keys)
    with world.store.write() as session:
        project = session.get_one(Site, world.site_id).project_id
        session.add(Sandbox(id="sbx_1", team_id=world.team_id, project_id=project))
        session.flush()
        keep_env(session, vault, "sbx_1", {"TOKEN": "t"})
    assert values_are_hidden(world.store)
    old = vault.key_ids()
    add_key(keys)
    assert rewrap_all(world.store, vault) == 1
    forget_keys(keys, set(old))
    with world.store.read() as session:
        assert env_of(session, vault, "sbx_1") == {"TOKEN": "t"}


def put_value(world: World, vault: Vault, number: int) -> str:
    return put(world, vault, f"NAME_{number % 50}", str(number)).id


def put_variables(world: World, vault: Vault, number: int) -> str:
    def make(session: Session) -> str:
        project, id = session.get_one(Site, world.site_id).project_id, f"sbx_{number}"
        session.add(Sandbox(id=id, team_id=world.team_id, project_id=project))
        session.flush()
        keep_env(session, vault, id, {"NUMBER": str(number)})
        return id

    return world.store.in_write(make)


def put_credential(world: World, vault: Vault, number: int) -> str:
    """A new one for every two, so that both ways of hiding one are taken."""

    def make(session: Session) -> str:
        site = session.get_one(Site, world.site_id)
        site.repository = "https://forge.example/shop.git"
        session.flush()
        found = credentials.fitting(session, site)
        if found and number % 2:
            row = credentials.credential(session, site.id, found[0].id, lock=True)
            return credentials.replace_token(session, vault, row, str(number), None).id
        for row in found:
            session.delete(row)
        session.flush()
        return credentials.create(session, vault, site, Credential("token", str(number)), {}).id

    return world.store.in_write(make)


def opened_value(session: Session, vault: Vault, id: str) -> str | None:
    return open_value(vault, session.get_one(ConfigValue, id))


def opened_variables(session: Session, vault: Vault, id: str) -> str | None:
    return env_of(session, vault, id)["NUMBER"]


def opened_credential(session: Session, vault: Vault, id: str) -> str | None:
    row = session.get(RepositoryCredential, id)
    found = credentials.opened(vault, [row] if row is not None else [])
    return found.token if found is not None else None


def put_endpoint(world: World, vault: Vault, number: int) -> str:
    """A new one, another place for notices, and a rotation, in turns."""

    def make(session: Session) -> str:
        found = session.exec(select(WebhookEndpoint).with_for_update()).one_or_none()
        if found is not None and number % 3:
            webhooks.set_hidden_url(vault, found, str(number), "shown")
            return found.id
        if found is not None:
            session.delete(found)
            session.flush()
        wanted = webhooks.EndpointRequest("notice", "shown", ["*"], 1, hidden_url=str(number))
        return webhooks.create_endpoint(session, vault, world.team_id, wanted, None, {})[0].id

    return world.store.in_write(make)


def put_hook(world: World, vault: Vault, number: int) -> str:
    def make(session: Session) -> str:
        for row in session.exec(select(ForgeHook)).all():
            session.delete(row)
        session.flush()
        hook, secret = forges.create_hook(session, vault, session.get_one(Site, world.site_id), "gitea", {})
        hook.preview = secret
        return f"{hook.id} {number}"

    return world.store.in_write(make)


def put_link(world: World, vault: Vault, number: int) -> str:
    def make(session: Session) -> str:
        wanted = forge_links.LinkRequest("gitea", "https://forge.example", "a/b", token=str(number))
        return forge_links.put_link(session, vault, session.get_one(Site, world.site_id), wanted, {}).id

    return world.store.in_write(make)


def opened_endpoint(session: Session, vault: Vault, id: str) -> str | None:
    row = session.get(WebhookEndpoint, id)
    return webhooks.open_endpoint(vault, row, utcnow()).url if row is not None else None


def opened_hook(session: Session, vault: Vault, id: str) -> str | None:
    """The number that it was made with, if it is there and opens to its secret."""
    name, _, number = id.partition(" ")
    row = session.get(ForgeHook, name)
    return number if row is not None and forges.secret_of(vault, row) == row.preview else None


def opened_link(session: Session, vault: Vault, id: str) -> str | None:
    return forge_links.token_of(vault, session.get_one(ForgeLink, id))


def id_of_last(made: dict[str, str]) -> str:
    return max(made, key=lambda id: int(made[id]))


KINDS = {
    "values": (HIDDEN, put_value, opened_value),
    "variables of sandboxes": (HIDDEN, put_variables, opened_variables),
    "credentials": (HIDDEN, put_credential, opened_credential),
    "webhooks": (WEBHOOKS, put_endpoint, opened_endpoint),
    "hooks": (WEBHOOKS, put_hook, opened_hook),
    "forges": (WEBHOOKS, put_link, opened_link),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_set_during_a_rotation_is_not_lost_with_the_old_key(world: World, keys: Path, kind: str) -> None:
    tables, write, read = KINDS[kind]
    ended = threading.Event()
    made: dict[str, str] = {}

    def go_on() -> None:
        vault, number = Vault(keys), 0
        while not ended.is_set() or number < 40:
            made[write(world, vault, number)] = str(number)
            number += 1

    writer = threading.Thread(target=go_on)
    writer.start()
    try:
        for _ in range(4):
            vault = Vault(keys)
            old = vault.key_ids()
            add_key(keys)
            rewrap_all(world.store, vault, tables)
            forget_keys(keys, set(old))
    finally:
        ended.set()
        writer.join()
    assert len(made) >= (1 if kind == "forges" else 10)
    with world.store.read() as session:
        opened = {id: read(session, Vault(keys), id) for id in made}
    # A credential that was deleted for the next one is gone; the last one of each kind is there.
    assert opened == {id: number if opened[id] is not None else None for id, number in made.items()}
    assert opened[id_of_last(made)] is not None


def test_a_row_that_was_given_anothers_value_does_not_open(world: World, keys: Path) -> None:
    vault = Vault(keys)
    mine, other = put(world, vault, "MINE", "mine"), put(world, vault, "OTHER", "theirs")
    with world.store.write() as session:
        row = session.get_one(ConfigValue, mine.id)
        row.ciphertext, row.wrapped_key, row.key_id = other.ciphertext, other.wrapped_key, other.key_id
    with world.store.read() as session, pytest.raises(HeadwayError) as refused:
        open_value(vault, session.get_one(ConfigValue, mine.id))
    assert refused.value.code == "config.unreadable"


def test_old_versions_are_forgotten_but_for_those_that_a_rollout_froze(world: World, keys: Path) -> None:
    vault = Vault(keys)
    frozen = put(world, vault, "NAME", "0")
    job = world.accept_roll(world.artifact("a" * 64))
    world.store.in_write(lambda session: claim_next(session, world.env_id))
    for number in range(KEPT_VERSIONS + 10):
        last = put(world, vault, "NAME", str(number + 1))
    kept = sorted(row.version for row in rows(world.store))
    assert kept == [1, *range(last.version - KEPT_VERSIONS + 1, last.version + 1)]
    release = world.store.in_write(lambda session: append_release(session, job.resource_id, None))
    with world.store.read() as session:
        assert [row.id for row in values_of(session, world.env_id, release.config_version)] == [frozen.id]


def test_a_claim_that_is_repeated_freezes_once(world: World, keys: Path) -> None:
    vault = Vault(keys)
    put(world, vault, "NAME", "one", secret=False)
    world.accept_roll(world.artifact("a" * 64))
    first = world.store.in_write(lambda session: claim_next(session, world.env_id))
    put(world, vault, "NAME", "two", secret=False)
    again = world.store.in_write(lambda session: claim_next(session, world.env_id))
    assert first is not None
    assert again is not None
    assert (again.id, again.config_version) == (first.id, first.config_version) == (first.id, 1)


def test_an_environment_without_configuration_has_number_zero(world: World, keys: Path) -> None:
    owner = Owner(world.site_id, world.env_id)
    world.accept_roll(world.artifact("a" * 64))
    first = world.store.in_write(lambda session: claim_next(session, world.env_id))
    assert first is not None
    assert first.config_version == 0
    put(world, Vault(keys), "NAME", "one")
    world.store.in_write(lambda session: unset_value(session, owner, "NAME", {}, secret=True))
    assert world.store.in_write(lambda session: append_release(session, first.id, None)).config_version == 0


def test_many_set_one_name_at_once(world: World, keys: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    vault = Vault(keys)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: put(world, vault, "NAME", str(number)).version, range(24)))
    assert sorted(made) == list(range(1, 25))
    assert [row.version for row in rows(world.store) if row.current] == [24]


def test_what_private_repositories_are_read_with_moves_too(store: Store, world: World, keys: Path) -> None:
    vault = Vault(keys)
    with store.write() as session:
        site = session.get_one(Site, world.site_id)
        site.repository = "https://forge.example/shop.git"
        session.flush()
        credentials.create(session, vault, site, Credential("token", "hush"), {})
    assert values_are_hidden(store)
    fresh = add_key(keys)
    assert rewrap_all(store, vault) == 1
    forget_keys(keys, set(vault.key_ids()) - {fresh})
    with store.read() as session:
        found = credentials.opened(vault, credentials.fitting(session, session.get_one(Site, world.site_id)))
    assert found is not None
    assert found.token == "hush"


def test_both_secrets_of_a_rotated_webhook_sign_under_the_new_key(store: Store, world: World, keys: Path) -> None:
    vault = Vault(keys)
    wanted = webhooks.EndpointRequest("managed", "https://example.com", ["*"], 1, headers={"X-Mine": "hush"})
    assert not values_are_hidden(store, WEBHOOKS)
    with store.write() as session:
        made, first = webhooks.create_endpoint(session, vault, world.team_id, wanted, None, {})
        second = webhooks.rotate(session, vault, made, utcnow() + timedelta(hours=1))
    assert (values_are_hidden(store), values_are_hidden(store, WEBHOOKS)) == (False, True)
    fresh = add_key(keys)
    assert rewrap_all(store, vault, WEBHOOKS) == 2
    forget_keys(keys, set(vault.key_ids()) - {fresh})
    with store.read() as session:
        opened = webhooks.open_endpoint(vault, session.get_one(WebhookEndpoint, made.id), utcnow())
    assert (opened.secrets, opened.headers) == ((second, first), {"X-Mine": "hush"})
